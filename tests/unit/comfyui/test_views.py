"""Answers of queue, history and system, recorded and hostile."""

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_api_service.comfyui.messages import FileRef
from comfy_api_service.comfyui.views import Outcome, history_entry, queue_view, system_stats
from comfy_api_service.comfyui.wire import Malformed

Recording = list[dict[str, Any]]


def answers(recording: Recording, path: str) -> list[dict[str, Any]]:
    return [
        e
        for e in recording
        if e["dir"] == "http"
        and e.get("method") == "GET"
        and e["path"].startswith(path)
        and e["status"] == 200
    ]


OUTCOMES: dict[str, Outcome] = {
    "interrupt_running": Outcome.INTERRUPTED,
    "invalid_traversal_load": Outcome.ERROR,
    "runtime_error_traversal_save": Outcome.ERROR,
    "runtime_error_out_of_memory": Outcome.ERROR,
    "missing_model_in_combo_form": Outcome.ERROR,
    "unknown_key_link": Outcome.ERROR,
}


def test_every_recorded_history_is_read(recordings: dict[str, Recording]) -> None:
    read = 0
    for name, recording in recordings.items():
        for answer in answers(recording, "/history/"):
            prompt_id = unquote(answer["path"].removeprefix("/history/"))
            entry = history_entry(prompt_id, answer["body"])
            if not answer["body"]:
                assert entry is None
                continue
            assert entry is not None
            read += 1
            raw = answer["body"][prompt_id]
            told = dict(raw["status"]["messages"])
            assert entry.prompt_id == prompt_id
            assert entry.client_id == raw["prompt"][3]["client_id"]
            assert entry.outcome is OUTCOMES.get(name.split("/")[1], Outcome.SUCCESS)
            assert entry.promised == tuple(raw["prompt"][4])
            assert set(entry.outputs) == set(raw["outputs"])
            assert entry.cached == tuple(told["execution_cached"]["nodes"])
            assert (entry.error is not None) == (entry.outcome is Outcome.ERROR)
            assert entry.started_at == told["execution_start"]["timestamp"] / 1000
            assert entry.started_at is not None
            assert entry.ended_at is not None
            assert 0 <= entry.ended_at - entry.started_at < 60
    assert read > 40


def test_history_and_socket_tell_the_same_outputs(recordings: dict[str, Recording], version: str) -> None:
    (answer,) = answers(recordings[f"{version}/several_outputs"], "/history/")
    entry = history_entry(answer["path"].removeprefix("/history/"), answer["body"])
    assert entry is not None
    assert set(entry.promised) == {"2", "4", "6"}
    assert entry.outputs["2"].files == (
        FileRef("c_00001_.png", "a/b", "output"),
        FileRef("c_00002_.png", "a/b", "output"),
    )
    assert [ref.type for ref in entry.outputs["4"].files] == ["temp", "temp"]
    assert entry.outputs["6"].values == ("41",)


def test_the_failed_node_is_known_from_history(recordings: dict[str, Recording], version: str) -> None:
    (answer,) = answers(recordings[f"{version}/runtime_error_out_of_memory"], "/history/")
    entry = history_entry(answer["path"].removeprefix("/history/"), answer["body"])
    assert entry is not None
    assert entry.error is not None
    assert entry.error.out_of_memory
    assert entry.error.node_id == "1"
    (answer,) = answers(recordings[f"{version}/interrupt_running"], "/history/")
    entry = history_entry(answer["path"].removeprefix("/history/"), answer["body"])
    assert entry is not None
    assert (entry.error, entry.interrupted_at) == (None, "3")


def test_a_result_over_the_socket_leaves_no_outputs(recordings: dict[str, Recording], version: str) -> None:
    (answer,) = answers(recordings[f"{version}/save_image_websocket"], "/history/")
    entry = history_entry(answer["path"].removeprefix("/history/"), answer["body"])
    assert entry is not None
    assert (entry.outcome, entry.outputs, entry.promised) == (Outcome.SUCCESS, {}, ("2",))


def test_a_partly_invalid_prompt_promised_less_than_was_sent(
    recordings: dict[str, Recording], version: str
) -> None:
    (answer,) = answers(recordings[f"{version}/partly_invalid_outputs"], "/history/")
    entry = history_entry(answer["path"].removeprefix("/history/"), answer["body"])
    assert entry is not None
    assert entry.promised == ("2",)


def history(**changes: Any) -> dict[str, Any]:
    entry = {
        "prompt": [1, "p", {}, {"client_id": "c"}, ["2"]],
        "outputs": {},
        "status": {"status_str": "success", "completed": True, "messages": []},
        "meta": {},
    }
    return {"p": {**entry, **changes}}


def test_grown_nodes_count_for_the_node_that_grew_them() -> None:
    ref = {"filename": "a.png", "subfolder": "", "type": "output"}
    meta = {"display_node": "5"}
    body = history(
        outputs={"5.0.1": {"images": [ref]}, "5.0.2": {"images": [ref, {**ref, "filename": "../a"}]}},
        meta={"5.0.1": meta, "5.0.2": meta},
    )
    entry = history_entry("p", body)
    assert entry is not None
    assert set(entry.outputs) == {"5"}
    assert (len(entry.outputs["5"].files), entry.outputs["5"].invalid) == (2, 1)


@pytest.mark.parametrize(
    "body",
    [
        [],
        None,
        {"other": {}},
        {"p": None},
        history(prompt=[1, "p", {}]),
        history(prompt=None),
        history(status=None),
        history(status={"status_str": "unheard of"}),
        history(status={"status_str": "success", "messages": [["execution_cached", {"nodes": 4}]]}),
    ],
)
def test_a_history_that_cannot_be_read_is_not_an_absent_one(body: object) -> None:
    with pytest.raises(Malformed):
        history_entry("p", body)


def test_success_is_not_believed_beside_an_error() -> None:
    told = [["execution_error", {"node_id": "1"}]]
    entry = history_entry("p", history(status={"status_str": "success", "messages": told}))
    assert entry is not None
    assert entry.outcome is Outcome.ERROR


def test_every_recorded_queue_is_read(recordings: dict[str, Recording]) -> None:
    seen = 0
    for recording in recordings.values():
        for answer in answers(recording, "/queue"):
            view = queue_view(answer["body"])
            raw = answer["body"]
            assert [i.prompt_id for i in view.running] == [item[1] for item in raw["queue_running"]]
            assert [i.number for i in view.pending] == [item[0] for item in raw["queue_pending"]]
            assert len(view) == len(raw["queue_running"]) + len(raw["queue_pending"])
            for item, entry in zip(view.pending, raw["queue_pending"], strict=True):
                assert item.client_id == entry[3]["client_id"]
                assert item.prompt_id in view
                seen += 1
            assert "x" not in view
    assert seen >= 6


def test_queue_items_of_newer_servers_have_a_sixth_part() -> None:
    raw = [3, "p", {}, {"client_id": "c"}, ["9"], {"api_key": "x"}]
    view = queue_view({"queue_running": [raw], "queue_pending": []})
    assert view.running[0].client_id == "c"


def test_prompts_of_others_in_any_form_count() -> None:
    view = queue_view({"queue_running": [["x", 7]], "queue_pending": [[None, None, {}, None]]})
    assert len(view) == 2


@pytest.mark.parametrize(
    "body", [None, {}, {"queue_running": []}, {"queue_running": [1], "queue_pending": []}]
)
def test_a_queue_that_cannot_be_read_is_not_an_empty_one(body: object) -> None:
    with pytest.raises(Malformed):
        queue_view(body)


def test_recorded_systems(recordings: dict[str, Recording], version: str) -> None:
    (answer,) = answers(recordings[f"{version}/info_endpoints"], "/system_stats")
    stats = system_stats(answer["body"])
    assert (stats.version, stats.python) == (version, "3.11.7")
    assert stats.ram_total == 25276502016
    (device,) = stats.devices
    assert (device.name, device.type, device.vram_total) == ("cpu", "cpu", 25276502016)
    assert 0 < device.vram_free < device.vram_total


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
@settings(max_examples=300, deadline=None)
def test_hostile_answers_are_malformed_at_worst(one: Any, two: Any, three: Any) -> None:
    for read in (
        lambda: history_entry("p", {"p": one}),
        lambda: history_entry("p", history(outputs=one, status={"status_str": "error", "messages": two})),
        lambda: history_entry("p", history(prompt=[one, two, {}, three, ["1", one]], meta=two)),
        lambda: queue_view({"queue_running": [one], "queue_pending": [[one, two, three, one]]}),
        lambda: system_stats({"system": {"comfyui_version": one, "ram_total": two}, "devices": [three]}),
        lambda: system_stats(one),
    ):
        try:
            read()
        except Malformed:
            continue
