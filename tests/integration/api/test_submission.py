"""POST /api/v1/jobs: what is taken, what is refused, and with which words."""

from typing import Any

import pytest
from tests.support.api import SMALL, Client, connected

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.services.views import JobView

JOBS = "/api/v1/jobs"
JSON = {"Content-Type": "application/json"}


async def _count(client: Client) -> int:
    return len((await client.get(JOBS, params={"limit": 100})).json()["jobs"])


async def test_a_job_is_accepted_with_its_addresses(client: Client) -> None:
    answer = await client.post(JOBS, json=SMALL)
    body = answer.json()
    assert answer.status_code == 202
    assert list(body) == [
        "job_id", "status", "queued_at", "location", "status_url", "events_url", "websocket_url",
        "queue_position", "estimated_start_at", "cost",
    ]  # fmt: skip
    assert answer.headers["location"] == body["location"] == f"http://service.test{JOBS}/{body['job_id']}"
    assert body["websocket_url"] == f"ws://service.test/ws/jobs/{body['job_id']}"
    assert (await client.get(body["location"])).json()["job_id"] == body["job_id"]


async def test_the_same_key_gives_the_same_job_and_another_body_is_refused(client: Client) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = await client.post(JOBS, json=SMALL, headers=headers)
    again = await client.post(JOBS, json={**SMALL, "steps": 2.0, "negative_prompt": ""}, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json()["job_id"] == first.json()["job_id"]
    other = await client.post(JOBS, json={**SMALL, "steps": 3}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_an_identical_request_with_dedupe_gives_the_same_job(client: Client) -> None:
    first = await client.post(JOBS, json={**SMALL, "dedupe": True})
    again = await client.post(JOBS, json={**SMALL, "dedupe": True})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["job_id"] == again.json()["job_id"]
    assert "idempotent-replayed" not in again.headers


async def test_options_reach_the_job(client: Client, service: Service) -> None:
    given = {
        **SMALL,
        "seed": 2**64 - 1,
        "num_images": 2,
        "sampler": "DPM++ 2M Karras",
        "priority": -10,
        "deadline": 600,
        "max_attempts": 7,
        "labels": {"team": "café", "a/b": ""},
        "output": {"format": "webp", "quality": 80, "metadata": "embed"},
    }
    job_id = (await client.post(JOBS, json=given)).json()["job_id"]
    shown = (await client.get(f"{JOBS}/{job_id}")).json()
    assert shown["params"]["seed"] == 2**64 - 1
    assert shown["params"]["batch_size"] == 2
    assert shown["params"]["sampler"] == "dpm++_2m_karras"
    assert shown["labels"] == {"team": "café", "a/b": ""}
    assert (shown["priority"], shown["max_attempts"]) == (-10, 7)
    view: JobView = await service.services.jobs.get(LOCAL, job_id)
    assert (view.job.output.format, view.job.output.quality, view.job.output.metadata) == (
        "webp",
        80,
        "embed",
    )


@pytest.mark.parametrize(
    "prompt", ["x", "é" * 5000, " a ", "line\nline", "\U0001f5bc", "\x7f", "'; DROP TABLE jobs; --"]
)
async def test_good_prompts_come_back_as_they_were(client: Client, prompt: str) -> None:
    answer = await client.post(JOBS, json={**SMALL, "prompt": prompt})
    assert answer.status_code == 202
    assert (await client.get(answer.json()["location"])).json()["params"]["prompt"] == prompt


def _each(name: str, *values: Any) -> list[tuple[str, Any, str]]:
    return [(name, value, name) for value in values]


REFUSED: list[tuple[str, Any, str]] = [
    *_each("prompt", "", " ", "\t\n", "x" * 5001, "a\x00b", 1, True, None, ["x"], {}),
    *_each("negative_prompt", "x" * 5001, "\x00", 1, None, False),
    *_each("width", 0, 63, 60, 2056, 2**70, -512, 512.5, "512", True, None, [], 511),
    *_each("height", 0, 63, 60, 2056, 2**70, -512, 512.5, "512", True, None, [], 511),
    *_each("steps", 0, 151, -1, 1.5, "20", True, None),
    *_each("cfg_scale", 0, 0.99, 30.01, "7", True, None, -1),
    *_each("sampler", "", "no_such", 1, None, True),
    *_each("scheduler", "", "no_such", 1, False),
    *_each("seed", -2, 2**64, 2**200, 0.5, "1", True),
    *_each("model", "", "x" * 256, "a\x00", "a\nb", 1, False),
    *_each("batch_size", 0, 5, "1", True, 1.5),
    *_each("num_images", 0, 5, "1", True),
    *_each("clip_skip", 0, 13, "1", True, -1),
    *(("loras", value, field) for value, field in (
        ("x", "loras"), (None, "loras"), ([{}], "loras.0.name"), ([{"name": "", "weight": 1}], "loras.0.name"),
        ([{"name": "a", "weight": 11}], "loras.0.weight"), ([{"name": "a", "weight": "1"}], "loras.0.weight"),
        ([{"name": "a", "x": 1}], "loras.0.x"), ([{"name": "a"}] * 9, "loras"),
    )),
    *(("upscale", value, field) for value, field in (
        ("x", "upscale"), ({"factor": 0.5}, "upscale.factor"), ({"factor": 5}, "upscale.factor"),
        ({"factor": True}, "upscale.factor"), ({"model": ""}, "upscale.model"), ({"by": 2}, "upscale.by"),
    )),
    *_each("priority", -11, 11, "1", True, None, 0.5),
    *_each("deadline", 0, -1, 1e9, "60", True),
    *_each("max_attempts", 0, 11, "3", True, None),
    *(("labels", value, field) for value, field in (
        ("x", "labels"), (None, "labels"), ({"a": 1}, "labels.a"), ({"a": None}, "labels.a"),
        ({"a": "x" * 257}, "labels.a"), ({"a": "\n"}, "labels.a"), ({"": "x"}, "labels"),
        ({"a b": "x"}, "labels"), ({"k" * 65: "x"}, "labels"),
        ({str(n): "x" for n in range(17)}, "labels"),
    )),
    *(("output", value, field) for value, field in (
        ("png", "output"), (None, "output"), ({"format": "gif"}, "output.format"), ({"quality": 0}, "output.quality"),
        ({"quality": 101}, "output.quality"), ({"metadata": "keep"}, "output.metadata"), ({"x": 1}, "output.x"),
    )),
    *_each("dedupe", "true", 1, 0, None),
    ("no_such_field", 1, "no_such_field"),
    ("Prompt", "x", "Prompt"),
]  # fmt: skip


@pytest.mark.sqlite
async def test_every_field_out_of_range_of_wrong_type_or_unknown_is_refused_by_name(client: Client) -> None:
    for name, value, field in REFUSED:
        answer = await client.post(JOBS, json={**SMALL, name: value})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (422, "VALIDATION_ERROR"), (name, value)
        named = [fault["field"].rstrip("…") for fault in error["details"]["errors"]]
        assert any(one.startswith(field) for one in named), (name, value, named)
    assert await _count(client) == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "https://127.0.0.1/x",
        "https://db.internal/x",
        "https://example.com:8443/x",
        "x",
    ],
)
@pytest.mark.sqlite
async def test_a_webhook_that_may_not_be_asked_is_refused_by_name(client: Client, url: str) -> None:
    answer = await client.post(JOBS, json={**SMALL, "webhook_url": url})
    (fault,) = answer.json()["error"]["details"]["errors"]
    assert (answer.status_code, fault["field"]) == (422, "webhook_url")
    assert await _count(client) == 0


@pytest.mark.sqlite
async def test_all_faults_are_named_at_once_with_bounds_and_never_the_prompt(client: Client) -> None:
    secret = "a very private wish " * 300
    answer = await client.post(
        JOBS, json={"prompt": secret, "width": 4096, "steps": "many", "model": "m" * 300}
    )
    error = answer.json()["error"]
    assert error["details"]["errors"] == [
        {"field": "prompt", "message": "must have at most 5000 characters", "bound": 5000},
        {"field": "width", "message": "must be at most 2048", "value": 4096, "bound": 2048},
        {"field": "steps", "message": "must be an integer", "value": "many"},
        {
            "field": "model",
            "message": "must have at most 255 characters",
            "value": "m" * 64 + "…",
            "bound": 255,
        },
    ]
    assert "private" not in answer.text


@pytest.mark.sqlite
async def test_a_labels_key_at_fault_is_told_as_that(client: Client) -> None:
    labels = {"": "x", "a b": "x", "prompt": "\n", "k" * 65: 1}
    answer = await client.post(JOBS, json={**SMALL, "labels": labels})
    faults = answer.json()["error"]["details"]["errors"]
    pattern = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"
    key = {"field": "labels", "message": f"has a key that must match {pattern}", "bound": pattern}
    value = "^[^\\x00-\\x1f\\x7f]*$"
    assert faults == [
        {**key, "value": ""},
        {**key, "value": "a b"},
        {"field": "labels.prompt", "message": f"must match {value}", "value": "\n", "bound": value},
        {**key, "value": "k" * 64 + "…"},
        {"field": "labels." + "k" * 64, "message": "must be a string", "value": 1},
    ]


@pytest.mark.sqlite
async def test_absent_prompt_and_two_different_numbers(client: Client) -> None:
    absent = (await client.post(JOBS, json={})).json()["error"]["details"]["errors"]
    assert absent == [{"field": "prompt", "message": "is required"}]
    both = await client.post(JOBS, json={**SMALL, "batch_size": 1, "num_images": 2})
    assert both.status_code == 422
    assert (await client.post(JOBS, json={**SMALL, "batch_size": 2, "num_images": 2})).status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"{'prompt': 'x'}", 400),
        (b'{"prompt": "x"} x', 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'\xef\xbb\xbf{"prompt": "x"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "x", "a":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        (b'{"prompt": "x", "seed":' + b"1" * 5000 + b"}", 400),
        (b'{"prompt": "x", "cfg_scale": NaN}', 422),
        (b'{"prompt": "x", "cfg_scale": Infinity}', 422),
        (b'{"prompt": "x", "cfg_scale": -Infinity}', 422),
        (b'{"prompt": "x", "cfg_scale": 1e999}', 422),
        (b'{"prompt": "x", "width": NaN}', 422),
        (b'{"prompt": "x", "deadline": NaN}', 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"prompt"', 422),
    ],
)
@pytest.mark.sqlite
async def test_bodies_that_are_no_requests(client: Client, body: bytes, status: int) -> None:
    answer = await client.post(JOBS, content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == ("BAD_REQUEST" if status == 400 else "VALIDATION_ERROR")
    assert await _count(client) == 0


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "json",
        "",
    ],
)
@pytest.mark.sqlite
async def test_only_json_is_taken(client: Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = await client.post(JOBS, content=b'{"prompt": "x"}', headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"]
)
@pytest.mark.sqlite
async def test_json_under_its_other_names(client: Client, media_type: str) -> None:
    answer = await client.post(JOBS, content=b'{"prompt": "x"}', headers={"Content-Type": media_type})
    assert answer.status_code == 202


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "ü"])
@pytest.mark.sqlite
async def test_a_bad_idempotency_key_is_refused(client: Client, key: str) -> None:
    answer = await client.post(JOBS, json=SMALL, headers={b"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.sqlite
async def test_an_unknown_model_is_refused_with_the_nearest_names(client: Client) -> None:
    answer = await client.post(JOBS, json={**SMALL, "model": "v1-5-prund.safetensors"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "MODEL_NOT_FOUND")
    assert "v1-5-pruned-emaonly.safetensors" in error["details"]["nearest"]
    assert await _count(client) == 0


async def test_the_way_through_the_framework_answers_the_same(client: Client, service: Service) -> None:
    """The shortcut of this operation and its route are one function; both give the same answers."""
    app: Any = service.app

    async def past_the_shortcut(scope: Any, receive: Any, send: Any) -> None:
        await app.fastapi({**scope, "comfy_state": app._state, "comfy_scheme": "http"}, receive, send)

    async with connected(past_the_shortcut) as plain:
        for body, headers in (
            (b'{"prompt": "x", "width": 64, "height": 64}', JSON),
            (b'{"prompt": ""}', JSON),
            (b"{", JSON),
            (b"{}", {}),
            (b'{"prompt": "x", "model": "none"}', JSON),
            (b'{"prompt": "x"}', {**JSON, "Idempotency-Key": "a b"}),
        ):
            ours = await client.post(JOBS, content=body, headers=headers)
            theirs = await plain.post(JOBS, content=body, headers=headers)
            assert ours.status_code == theirs.status_code
            assert ours.json().keys() == theirs.json().keys()
            if ours.is_error:
                assert ours.json()["error"]["message"] == theirs.json()["error"]["message"]
