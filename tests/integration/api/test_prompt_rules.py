"""The operator's rules for texts: a list of terms, and a hook that refuses, rewrites, is slow, is down, or lies."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from tests.integration.api.test_workflows import GRAPH, JOBS, WORKFLOWS, ended, run
from tests.support.api import SMALL, Client, connected
from tests.support.hooks import HookServer, hook_server
from tests.support.stack import MODEL, online, running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db.jobs import graph_of
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.outbound.hook import HookUnusable
from comfy_api_service.simulator import Simulator

SECRET_WORDS = "vermilion unicorn"
PICTURE: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": MODEL}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["1", 1]}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 1, "steps": 1, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
}  # fmt: skip


@pytest.fixture
async def hook() -> AsyncIterator[HookServer]:
    async with hook_server() as server:
        yield server


@asynccontextmanager
async def ruled(folder: Path, sim: Simulator, **settings: Any) -> AsyncIterator[tuple[Client, Service]]:
    async with running(folder, sim.url, **settings) as service:
        await online(service)
        async with connected(service.app) as client:
            yield client, service


def listed(folder: Path, *terms: str) -> Path:
    path = folder / "terms.txt"
    path.write_text("\n".join(terms), encoding="utf-8")
    return path


def with_text(text: str, node: str = "2") -> dict[str, Any]:
    changed = {**PICTURE[node], "inputs": {**PICTURE[node]["inputs"], "text": text}}
    return {"workflow": {**PICTURE, node: changed}}


async def counted(client: Client) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith("comfyui_prompt_rules_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


async def made_graph(service: Service, job_id: str) -> Any:
    return await service.db.read(lambda tx: graph_of(tx, LOCAL_ACCOUNT, job_id))


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- the list ------------------------------------------------------------------------------------------------


async def test_a_listed_term_is_refused_wherever_it_stands_and_never_repeated(
    tmp_path: Path, sim: Simulator, logged: list[Any]
) -> None:
    settings = {"prompt_blocklist_file": listed(tmp_path, "# none", SECRET_WORDS)}
    trick = "a Vermi\u200blion\n\uff35nicorn"
    async with ruled(tmp_path, sim, **settings) as (client, _):
        bodies = (
            {**SMALL, "prompt": trick},
            {**SMALL, "negative_prompt": trick},
            with_text(trick),
            with_text(trick, "3"),
            {"workflow_id": "text-to-image-sd15", "inputs": {"prompt": trick}},
        )
        for body in bodies:
            answer = await client.post(JOBS, json=body)
            assert code(answer) == (422, "PROMPT_REFUSED"), answer.text
            assert "nicorn" not in answer.text
            assert answer.json()["error"]["details"] == {}
        answer = await client.post("/api/v1/generate", json={**SMALL, "prompt": trick})
        assert code(answer) == (422, "PROMPT_REFUSED")
        answer = await client.post(
            "/api/v1/workflows/text-to-image-sd15/execute", json={"inputs": {"prompt": trick}}
        )
        assert code(answer) == (422, "PROMPT_REFUSED")
        batch = {"requests": [{**SMALL, "prompt": trick}, SMALL]}
        answer = await client.post("/api/v1/generate/batch", params={"wait": "false"}, json=batch)
        assert answer.status_code == 202, answer.text
        assert "PROMPT_REFUSED" in answer.text
        jobs = (await client.get(JOBS)).json()["jobs"]
        assert [job["params"]["prompt"] for job in jobs] == [SMALL["prompt"]]
        assert await counted(client) == {"allowed": 1, "refused": 8, "rewritten": 0, "failed": 0}
    assert "nicorn" not in json.dumps(logged, default=str)


@pytest.mark.sqlite
async def test_names_of_models_and_of_choices_are_no_texts(tmp_path: Path, sim: Simulator) -> None:
    settings = {"prompt_blocklist_file": listed(tmp_path, "euler", "*pruned*", "safetensors", "normal")}
    async with ruled(tmp_path, sim, **settings) as (client, _):
        assert (await run(client, {"workflow": PICTURE}))["status"] == "succeeded"
        assert (await run(client, {**SMALL, "sampler": "euler"}))["status"] == "succeeded"
        assert code(await client.post(JOBS, json=with_text("pruned"))) == (422, "PROMPT_REFUSED")


def joined(a: str, b: object) -> dict[str, Any]:
    """A graph that joins two texts as it runs."""
    inputs = {"string_a": a, "string_b": b, "delimiter": ""}
    prompt = {**PICTURE["2"], "inputs": {"text": ["8", 0], "clip": ["1", 1]}}
    return {"workflow": {**PICTURE, "2": prompt, "8": {"class_type": "StringConcatenate", "inputs": inputs}}}


@pytest.mark.sqlite
async def test_what_nodes_put_together_is_held_against_the_list_and_shown_to_the_hook(
    tmp_path: Path, hook: HookServer
) -> None:
    settings: dict[str, Any] = {
        "prompt_blocklist_file": listed(tmp_path, "forbidden"),
        "prompt_hook": hook.url,
    }
    async with (
        running(tmp_path, "http://127.0.0.1:9", **settings) as service,  # no inventory: any node may be there
        connected(service.app) as client,
    ):
        assert code(await client.post(JOBS, json=joined("forbid", "den"))) == (422, "PROMPT_REFUSED")
        cut = joined("", ["9", 0])
        cut["workflow"]["9"] = {
            "class_type": "StringSubstring",
            "inputs": {"string": "unforbidden", "start": ["10", 0], "end": 11},
        }
        cut["workflow"]["10"] = {"class_type": "GetImageSize", "inputs": {"image": ["11", 0]}}
        cut["workflow"]["11"] = GRAPH["1"]
        assert code(await client.post(JOBS, json=cut)) == (422, "PROMPT_REFUSED")
        assert hook.asked == []
        assert (await client.post(JOBS, json=joined("forbid ", "den"))).status_code == 202
        assert hook.asked[0]["built"] == ["forbid den"]
        hook.answers({"action": "rewrite", "texts": {"/workflow/8/inputs/string_a": "forbid"}})
        assert code(await client.post(JOBS, json=joined("forbid ", "den"))) == (422, "PROMPT_REFUSED")


@pytest.mark.sqlite
async def test_a_retry_is_held_against_the_list_of_today(tmp_path: Path, sim: Simulator) -> None:
    async with ruled(tmp_path, sim) as (client, _):
        jobs = [await run(client, body) for body in (SMALL, {"workflow": PICTURE})]
    async with ruled(tmp_path, sim, prompt_blocklist_file=listed(tmp_path, "lighthouse")) as (client, _):
        for job in jobs:
            answer = await client.post(f"{JOBS}/{job['job_id']}/retry")
            assert code(answer) == (422, "PROMPT_REFUSED")


# --- the hook ------------------------------------------------------------------------------------------------


@pytest.mark.sqlite
async def test_the_hook_is_asked_exactly_this(tmp_path: Path, sim: Simulator, hook: HookServer) -> None:
    async with ruled(tmp_path, sim, prompt_hook=hook.url, prompt_hook_secret="s3cret") as (client, _):
        await run(client, {**SMALL, "negative_prompt": "fog"})
        await run(client, {"workflow": PICTURE})
        answer = await client.post(WORKFLOWS, json={"name": "mine", "description": "", "workflow": PICTURE})
        workflow = answer.json()
        names = {
            one["targets"][0]["node"]: one["name"]
            for one in workflow["parameters"]
            if one["type"] == "string"
        }
        inputs = {names["2"]: "a harbour"}
        await run(client, {"workflow_id": workflow["workflow_id"], "inputs": inputs})
        assert await counted(client) == {"allowed": 3, "refused": 0, "rewritten": 0, "failed": 0}
    head = {"account_id": LOCAL_ACCOUNT, "tier": "local"}
    assert hook.asked == [
        {
            **head,
            "kind": "generation",
            "texts": {"/prompt": SMALL["prompt"], "/negative_prompt": "fog"},
            "built": [],
        },
        {
            **head,
            "kind": "graph",
            "built": [],
            "texts": {
                "/workflow/2/inputs/text": "a lighthouse",
                "/workflow/3/inputs/text": "fog",
                "/workflow/7/inputs/filename_prefix": "x",
            },
        },
        {
            **head,
            "kind": "graph",
            "built": [],
            "texts": {
                f"/inputs/{names['2']}": "a harbour",
                hook_place(hook.asked[2], "fog"): "fog",
                "/workflow/7/inputs/filename_prefix": "x",
            },
        },
    ]
    assert {headers["Authorization"] for headers in hook.headers} == {"Bearer s3cret"}


def hook_place(asked: dict[str, Any], text: str) -> str:
    texts: dict[str, str] = asked["texts"]
    return next(place for place, one in texts.items() if one == text)


async def test_the_hook_refuses(tmp_path: Path, sim: Simulator, hook: HookServer) -> None:
    hook.answers({"action": "refuse", "message": "No lighthouses, please."})
    async with ruled(tmp_path, sim, prompt_hook=hook.url) as (client, _):
        for body in (SMALL, {"workflow": PICTURE}):
            answer = await client.post(JOBS, json=body)
            assert code(answer) == (422, "PROMPT_REFUSED")
            assert answer.json()["error"]["message"] == "No lighthouses, please."
        assert (await client.get(JOBS)).json()["jobs"] == []
        assert (await counted(client))["refused"] == 2


async def test_the_hook_rewrites_and_the_job_shows_what_ran(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    hook.answers({"action": "rewrite", "texts": {"/prompt": "a harbour", "/negative_prompt": "people"}})
    async with ruled(tmp_path, sim, prompt_hook=hook.url) as (client, service):
        body, headers = {**SMALL, "model": MODEL}, {"Idempotency-Key": "k"}
        first = await client.post(JOBS, json=body, headers=headers)
        job = await ended(client, first.json()["job_id"])
        assert (job["params"]["prompt"], job["params"]["negative_prompt"]) == ("a harbour", "people")
        graph = await made_graph(service, job["job_id"])
        assert {"a harbour", "people"} <= {node["inputs"].get("text") for node in graph.values()}
        again = await client.post(JOBS, json=body, headers=headers)
        assert (again.status_code, again.json()["job_id"]) == (200, job["job_id"])
        as_it_ran = {**body, "prompt": "a harbour", "negative_prompt": "people"}
        other = await client.post(JOBS, json=as_it_ran, headers=headers)
        assert code(other) == (422, "IDEMPOTENCY_KEY_REUSED")

        hook.answers({"action": "rewrite", "texts": {"/workflow/2/inputs/text": "a harbour"}})
        job = await run(client, with_text("a lighthouse", "3"))  # both texts are the same one
        assert job["status"] == "succeeded"
        graph = await made_graph(service, job["job_id"])
        assert [graph[node]["inputs"]["text"] for node in ("2", "3")] == ["a harbour", "a harbour"]
        assert await counted(client) == {"allowed": 1, "refused": 0, "rewritten": 3, "failed": 0}


async def test_a_rewritten_input_of_a_template_is_shown(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    hook.answers({"action": "rewrite", "texts": {"/inputs/prompt": "a harbour"}})
    async with ruled(tmp_path, sim, prompt_hook=hook.url) as (client, service):
        inputs = {"prompt": "a lighthouse"}
        job = await run(client, {"workflow_id": "text-to-image-sd15", "inputs": inputs})
        assert job["status"] == "succeeded", job["error"]
        assert job["params"]["inputs"]["prompt"] == "a harbour"
        graph = await made_graph(service, job["job_id"])
        assert "a harbour" in {node["inputs"].get("text") for node in graph.values()}
        assert "lighthouse" not in json.dumps(graph)
        hook.answers({"action": "allow"})
        again = await client.post(f"{JOBS}/{job['job_id']}/retry")
        assert (await ended(client, again.json()["job_id"]))["params"]["inputs"] == job["params"]["inputs"]
        assert "a harbour" in hook.asked[-1]["texts"].values()


@pytest.mark.sqlite
async def test_what_the_hook_rewrites_is_held_against_the_list(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    settings = {"prompt_blocklist_file": listed(tmp_path, SECRET_WORDS), "prompt_hook": hook.url}
    async with ruled(tmp_path, sim, **settings) as (client, _):
        hook.answers({"action": "rewrite", "texts": {"/prompt": SECRET_WORDS}})
        assert code(await client.post(JOBS, json=SMALL)) == (422, "PROMPT_REFUSED")
        hook.answers({"action": "rewrite", "texts": {"/workflow/2/inputs/text": SECRET_WORDS}})
        assert code(await client.post(JOBS, json={"workflow": PICTURE})) == (422, "PROMPT_REFUSED")
        answer = await client.post(JOBS, json={**SMALL, "prompt": SECRET_WORDS})
        assert code(answer) == (422, "PROMPT_REFUSED")
        assert len(hook.asked) == 2  # what the list refuses is not sent anywhere


def _redirect(_: Any) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/elsewhere")


LIES: dict[str, Any] = {
    "not JSON": lambda _: web.Response(body=b"{", content_type="application/json"),
    "no object": lambda _: web.json_response(["allow"]),
    "no action": lambda _: web.json_response({}),
    "another action": lambda _: web.json_response({"action": "maybe"}),
    "an action of another type": lambda _: web.json_response({"action": ["allow"]}),
    "another field": lambda _: web.json_response({"action": "allow", "texts": {}}),
    "HTTP 500": lambda _: web.json_response({"action": "allow"}, status=500),
    "HTTP 204": lambda _: web.Response(status=204),
    "redirect": _redirect,
    "huge": lambda _: web.Response(body=b'{"action": "allow"}' + b" " * (5 << 20)),
    "nested": lambda _: web.Response(body=b"[" * 100_000, content_type="application/json"),
    "compressed": lambda _: web.Response(body=b'{"action": "allow"}', headers={"Content-Encoding": "gzip"}),
    "message of another type": lambda _: web.json_response({"action": "refuse", "message": {"a": 1}}),
    "long message": lambda _: web.json_response({"action": "refuse", "message": "x" * 501}),
    "message of lines": lambda _: web.json_response({"action": "refuse", "message": "a\r\nSet-Cookie: b"}),
    "no texts": lambda _: web.json_response({"action": "rewrite"}),
    "unknown place": lambda _: web.json_response({"action": "rewrite", "texts": {"/model": "x"}}),
    "text of another type": lambda _: web.json_response({"action": "rewrite", "texts": {"/prompt": 1}}),
    "long text": lambda _: web.json_response({"action": "rewrite", "texts": {"/prompt": "x" * 5001}}),
    "longer text": lambda _: web.json_response({"action": "rewrite", "texts": {"/prompt": "x" * 100_001}}),
    "empty prompt": lambda _: web.json_response({"action": "rewrite", "texts": {"/prompt": " "}}),
    "NUL": lambda _: web.json_response({"action": "rewrite", "texts": {"/prompt": "a\0b"}}),
    "half a character": lambda _: web.Response(
        body=b'{"action": "rewrite", "texts": {"/prompt": "\\ud800"}}', content_type="application/json"
    ),
}


@pytest.mark.sqlite
async def test_lies_are_failures(tmp_path: Path, sim: Simulator, hook: HookServer, logged: list[Any]) -> None:
    async with ruled(tmp_path, sim, prompt_hook=hook.url) as (client, _):
        for name, respond in LIES.items():
            hook.respond = respond
            answer = await client.post(JOBS, json=SMALL)
            assert code(answer) == (503, "SERVICE_UNAVAILABLE"), name
            assert answer.headers["Retry-After"] == "5"
            assert hook.url not in answer.text
        hook.answers({"action": "rewrite", "texts": {"/workflow/2/inputs/text": "x" * 100_001}})
        assert code(await client.post(JOBS, json={"workflow": PICTURE}))[0] == 503
        assert hook.elsewhere == 0
        assert (await client.get(JOBS)).json()["jobs"] == []
        assert (await counted(client))["failed"] == len(LIES) + 1
        hook.answers({"action": "allow"})  # who answers, if badly, is asked again
        assert (await client.post(JOBS, json=SMALL)).status_code == 202
    assert [one["event"] for one in logged].count("prompt_hook_failed") == len(LIES) + 1
    assert "lighthouse" not in json.dumps(logged, default=str)


@pytest.mark.sqlite
async def test_a_failure_lets_requests_pass_if_the_operator_says_so(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    settings = {
        "prompt_hook": hook.url,
        "prompt_hook_on_failure": "allow",
        "prompt_blocklist_file": listed(tmp_path, SECRET_WORDS),
    }
    async with ruled(tmp_path, sim, **settings) as (client, _):
        for lie in ("not JSON", "unknown place", "long text", "HTTP 500"):
            hook.respond = LIES[lie]
            job = await run(client, SMALL)
            assert job["params"]["prompt"] == SMALL["prompt"]
        hook.answers({"action": "rewrite", "texts": {"/workflow/2/inputs/text": "x", "/nowhere": "y"}})
        assert (await run(client, {"workflow": PICTURE}))["status"] == "succeeded"
        answer = await client.post(JOBS, json={**SMALL, "prompt": SECRET_WORDS})
        assert code(answer) == (422, "PROMPT_REFUSED")
        assert (await counted(client))["failed"] == 5


@pytest.mark.sqlite
@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 503), ("allow", 202)])
async def test_a_hook_that_does_not_answer_holds_nobody_for_long(
    tmp_path: Path, sim: Simulator, hook: HookServer, on_failure: str, status: int
) -> None:
    hook.hangs()
    settings = {"prompt_hook": hook.url, "prompt_hook_timeout": 0.2, "prompt_hook_on_failure": on_failure}
    async with ruled(tmp_path, sim, **settings) as (client, _):
        for _ in range(5):
            assert (await client.post(JOBS, json=SMALL)).status_code == status
        asked = len(hook.asked)
        assert asked == 5
        answers = await asyncio.gather(*(client.post(JOBS, json=SMALL) for _ in range(40)))
        assert {answer.status_code for answer in answers} == {status}
        assert len(hook.asked) == asked  # it is left alone
        assert (await counted(client))["failed"] == 45


@pytest.mark.sqlite
async def test_a_slow_hook_within_its_time_is_waited_for(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    go = asyncio.Event()

    async def slow(_: Any) -> web.StreamResponse:
        hook.waiting.set()
        await go.wait()
        return web.json_response({"action": "refuse"})

    hook.respond = slow
    async with ruled(tmp_path, sim, prompt_hook=hook.url, prompt_hook_timeout=30) as (client, _):
        waiting = asyncio.create_task(client.post(JOBS, json=SMALL))
        await hook.waiting.wait()
        assert (await client.get("/health/live")).status_code == 200
        go.set()
        assert code(await waiting) == (422, "PROMPT_REFUSED")


@pytest.mark.sqlite
async def test_a_hook_that_is_down(tmp_path: Path, sim: Simulator) -> None:
    async with ruled(tmp_path, sim, prompt_hook="http://127.0.0.1:9/check") as (client, _):
        for _ in range(7):
            answer = await client.post(JOBS, json=SMALL)
            assert code(answer) == (503, "SERVICE_UNAVAILABLE")
            assert "127.0.0.1" not in answer.text
        jobs = (await client.get(JOBS)).json()["jobs"]
        assert jobs == []


@pytest.mark.sqlite
async def test_a_kept_connection_that_is_closed_is_no_failure(
    tmp_path: Path, sim: Simulator, hook: HookServer
) -> None:
    async def cut(_: Any) -> web.StreamResponse:
        hook.answers({"action": "refuse"})
        raise asyncio.CancelledError

    hook.respond = cut
    async with ruled(tmp_path, sim, prompt_hook=hook.url) as (client, _):
        assert code(await client.post(JOBS, json=SMALL)) == (422, "PROMPT_REFUSED")
    assert len(hook.asked) == 2


# --- the hook as a function ----------------------------------------------------------------------------------

MODULE = """
import asyncio, threading
go = threading.Event()
def sync(document):
    if document["kind"] == "graph":
        return {"action": "refuse", "message": "No graphs."}
    return {"action": "rewrite", "texts": {"/prompt": "a harbour"}}
async def later(document):
    await asyncio.sleep(0)
    return sync(document)
def raises(document):
    raise ValueError(document["texts"]["/prompt"])
async def raises_later(document):
    raises(document)
def odd(document):
    return {"action": "rewrite", "texts": {"/prompt": "\\ud800"}}
def hangs(document):
    go.wait(60)
async def hangs_later(document):
    await asyncio.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"hook_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return name


@pytest.mark.sqlite
@pytest.mark.parametrize("function", ["sync", "later"])
async def test_a_function_refuses_and_rewrites(
    tmp_path: Path, sim: Simulator, module: str, function: str
) -> None:
    async with ruled(tmp_path, sim, prompt_hook=f"python:{module}:{function}") as (client, _):
        assert (await run(client, SMALL))["params"]["prompt"] == "a harbour"
        answer = await client.post(JOBS, json={"workflow": GRAPH})
        assert answer.json()["error"]["message"] == "No graphs."


@pytest.mark.sqlite
async def test_a_function_that_is_not_there_stops_the_start(
    tmp_path: Path, sim: Simulator, module: str
) -> None:
    for named in (f"{module}:absent", "no_such_module:check"):
        with pytest.raises(HookUnusable):
            async with ruled(tmp_path, sim, prompt_hook=f"python:{named}"):
                pass


@pytest.mark.sqlite
async def test_the_example_of_the_documentation(
    tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "RULES.md").read_text(encoding="utf-8")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "rules.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path / "code")
    async with ruled(tmp_path, sim, prompt_hook="python:rules:check") as (client, _):
        assert code(await client.post(JOBS, json={**SMALL, "prompt": "f0rb1dden"})) == (422, "PROMPT_REFUSED")
        assert (await run(client, SMALL))["status"] == "succeeded"
        assert (await run(client, {"workflow": PICTURE}))["status"] == "succeeded"


@pytest.mark.sqlite
@pytest.mark.parametrize("function", ["raises", "raises_later", "odd"])
async def test_a_function_that_raises_is_a_failure(
    tmp_path: Path, sim: Simulator, module: str, function: str, logged: list[Any]
) -> None:
    async with ruled(tmp_path, sim, prompt_hook=f"python:{module}:{function}") as (client, _):
        answer = await client.post(JOBS, json=SMALL)
        assert code(answer) == (503, "SERVICE_UNAVAILABLE")
        assert "lighthouse" not in answer.text
    assert "lighthouse" not in json.dumps(logged, default=str)


@pytest.mark.sqlite
@pytest.mark.parametrize("function", ["hangs", "hangs_later"])
async def test_a_function_that_hangs_stops_neither_requests_nor_the_service(
    tmp_path: Path, sim: Simulator, module: str, function: str
) -> None:
    import importlib  # noqa: PLC0415

    settings = {"prompt_hook": f"python:{module}:{function}", "prompt_hook_timeout": 0.1}
    async with ruled(tmp_path, sim, **settings) as (client, _):
        for _ in range(8):
            answer = await client.post(JOBS, json=SMALL)
            assert code(answer) == (503, "SERVICE_UNAVAILABLE")
    importlib.import_module(module).go.set()
