"""Each frame that a real server sent becomes the message that it means; anything else becomes nothing."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_api_service.comfyui.messages import (
    MAX_NODES,
    Cached,
    Failed,
    FileRef,
    Idle,
    Interrupted,
    Message,
    NodeStarted,
    Output,
    PreviewFrame,
    QueueRemaining,
    Started,
    Stepped,
    Succeeded,
    parse_binary,
    parse_text,
)

Recording = list[dict[str, Any]]
PROMPT = "8ea8b101-f281-4e46-a911-7eba285a5539"


def frame(kind: str, data: Any) -> str:
    """As aiohttp's `send_json` writes it."""
    return json.dumps({"type": kind, "data": data})


def with_metadata(**metadata: Any) -> bytes:
    """The head of a binary frame of the newer form."""
    packed = json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(packed)) + packed


def texts(recording: Recording) -> list[tuple[str, dict[str, Any]]]:
    return [(e["type"], e["data"]) for e in recording if e["dir"] == "ws" and "data" in e]


def messages(recording: Recording) -> list[Message]:
    found = (parse_text(frame(kind, data)) for kind, data in texts(recording))
    return [message for message in found if message is not None]


def of_status(data: dict[str, Any]) -> Message:
    return QueueRemaining(data["status"]["exec_info"]["queue_remaining"])


def of_executing(data: dict[str, Any]) -> Message | None:
    if data["node"] is None:
        return Idle(data["prompt_id"])
    return NodeStarted(data["prompt_id"], data["display_node"]) if "prompt_id" in data else None


def of_executed(data: dict[str, Any]) -> Message:
    output = data["output"]
    files = tuple(FileRef(**ref) for ref in output.get("images", ()))
    return Output(data["prompt_id"], data["node"], files, tuple(output.get("text", ())))


EXPECTED: dict[str, Callable[[dict[str, Any]], Message | None]] = {
    "status": of_status,
    "feature_flags": lambda _: None,
    "execution_start": lambda d: Started(d["prompt_id"], d["timestamp"] / 1000),
    "execution_cached": lambda d: Cached(d["prompt_id"], tuple(d["nodes"])),
    "executing": of_executing,
    "progress_state": lambda _: None,
    "progress": lambda d: Stepped(d["prompt_id"], d["node"], d["value"], d["max"]),
    "executed": of_executed,
    "execution_success": lambda d: Succeeded(d["prompt_id"]),
    "execution_interrupted": lambda d: Interrupted(d["prompt_id"], d["node_id"]),
}


def test_every_recorded_text_frame_means_what_it_says(recording: Recording) -> None:
    def malformed() -> None:
        pytest.fail("a recorded frame was called malformed")

    for kind, data in texts(recording):
        if kind == "execution_error":
            continue  # has a test of its own
        for written in (frame(kind, data), frame(kind, data).encode()):
            assert parse_text(written, malformed) == EXPECTED[kind](data)


def test_what_only_repeats_the_steps_is_passed_by_unread(recording: Recording) -> None:
    for kind, data in texts(recording):
        if kind == "progress_state":
            cut = frame(kind, data)[:-1]
            parse_text(cut, lambda: pytest.fail("it was parsed"))


ENDS: dict[str, type[Message]] = {
    "txt2img_success": Succeeded,
    "txt2img_all_cached": Succeeded,
    "txt2img_partly_cached": Succeeded,
    "save_image_websocket": Succeeded,
    "partly_invalid_outputs": Succeeded,
    "interrupt_running": Interrupted,
    "invalid_traversal_load": Failed,
    "runtime_error_traversal_save": Failed,
    "runtime_error_out_of_memory": Failed,
}


@pytest.mark.parametrize("scenario", ENDS)
def test_the_end_of_a_prompt_is_told_once(
    recordings: dict[str, Recording], version: str, scenario: str
) -> None:
    found = messages(recordings[f"{version}/{scenario}"])
    ends = [m for m in found if isinstance(m, Succeeded | Failed | Interrupted)]
    assert [type(end) for end in ends] == [ENDS[scenario]]


OUTPUTS: dict[str, list[tuple[str, list[str], list[Any]]]] = {
    "txt2img_success": [("9", ["output:/rec_00001_.png"], [])],
    "txt2img_all_cached": [("9", ["output:/rec_00001_.png"], [])],
    "video_mp4": [("3", ["output:video/out_00001_.mp4"], [])],
    "animated_webp": [("2", ["output:/anim_00001_.webp"], [])],
    "text_output": [("2", [], ["hello"])],
    "save_image_websocket": [],
    "interrupt_running": [],
}


@pytest.mark.parametrize("scenario", OUTPUTS)
def test_outputs_come_with_their_files_and_values(
    recordings: dict[str, Recording], version: str, scenario: str
) -> None:
    found = [m for m in messages(recordings[f"{version}/{scenario}"]) if isinstance(m, Output)]
    shown = [
        (o.node, [f"{f.type}:{f.subfolder}/{f.filename}" for f in o.files], list(o.values)) for o in found
    ]
    assert shown == OUTPUTS[scenario]
    assert not any(o.invalid for o in found)


@pytest.mark.parametrize(
    ("scenario", "node", "node_type", "memory"),
    [
        ("invalid_traversal_load", "1", "LoadImage", False),
        ("runtime_error_traversal_save", "2", "SaveImage", False),
        ("runtime_error_out_of_memory", "1", "EmptyImage", True),
    ],
)
def test_failures_name_the_node_and_no_path(
    recordings: dict[str, Recording], version: str, scenario: str, node: str, node_type: str, memory: bool
) -> None:
    (failure,) = [m for m in messages(recordings[f"{version}/{scenario}"]) if isinstance(m, Failed)]
    assert (failure.node_id, failure.node_type, failure.out_of_memory) == (node, node_type, memory)
    assert failure.exception_type
    assert failure.message
    assert "/" not in failure.message
    assert "hostname" not in failure.message


def test_recorded_previews_in_both_forms(recording: Recording) -> None:
    for event in recording:
        if event["dir"] != "ws" or event["type"] != "binary":
            continue
        head = bytes.fromhex(event["head"])
        if event["event"] == 1:
            picture = head[4:] + bytes(event["bytes"] - 8)
            kind = {1: "image/jpeg", 2: "image/png"}[head[3]]
            assert parse_binary(bytes([0, 0, 0, 1]) + head[:4] + picture) == PreviewFrame(None, kind, picture)
        else:
            assert event["event"] == 4
            length = struct.unpack(">I", head[:4])[0]
            metadata = json.dumps({"node_id": "3", "prompt_id": PROMPT, "image_type": "image/jpeg"})
            packed = metadata.ljust(length).encode()
            picture = bytes(event["bytes"] - 8 - length)
            found = parse_binary(struct.pack(">II", 4, length) + packed + picture)
            assert found == PreviewFrame(PROMPT, "image/jpeg", picture)


def test_what_sub_graphs_do_is_told_of_the_node_that_grew_them() -> None:
    ids = {"prompt_id": PROMPT, "node": "5.0.0.1", "display_node": "5"}
    assert parse_text(frame("executing", ids)) == NodeStarted(PROMPT, "5")
    assert parse_text(frame("executed", {**ids, "output": {"text": ["x"]}})) == Output(
        PROMPT, "5", (), ("x",)
    )


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type": 1, "data": {}}',
        '{"type": "executed"}',
        '{"type": "executed", "data": []}',
        frame("executed", {"prompt_id": PROMPT, "output": {}}),
        frame("execution_success", {}),
        frame("execution_success", {"prompt_id": "x" * 65}),
        frame("execution_success", {"prompt_id": "a\nb"}),
        frame("execution_success", {"prompt_id": ["a"]}),
        frame("execution_cached", {"prompt_id": PROMPT, "nodes": "4"}),
        frame("status", {"status": {"exec_info": {"queue_remaining": -1}}}),
        frame("progress", {"prompt_id": PROMPT, "value": True, "max": 3, "node": "3"}),
        "[" * 100_000,
    ],
)
def test_malformed_frames_are_counted_and_not_raised(bad: str) -> None:
    counted: list[int] = []
    assert parse_text(bad, lambda: counted.append(1)) is None
    assert counted == [1]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\1\0\0\0\1",
        b"\0\0\0\1\0\0\0\7picture",
        b"\0\0\0\4\xff\xff\xff\xffpicture",
        b"\0\0\0\4\0\0\0\2{}picture",
        b"\0\0\0\4\0\0\0\2[]picture",
        with_metadata(prompt_id=PROMPT, image_type=["image/png"]) + b"picture",
        with_metadata(prompt_id=PROMPT, image_type="image/gif") + b"picture",
        with_metadata(image_type="image/png") + b"picture",
        with_metadata(prompt_id=PROMPT, image_type="image/png"),
        with_metadata(prompt_id=PROMPT, image_type="image/png", more="x" * 100_000) + b"picture",
    ],
)
def test_malformed_binary_frames_are_counted_and_not_raised(bad: bytes) -> None:
    counted: list[int] = []
    assert parse_binary(bad, lambda: counted.append(1)) is None
    assert counted == [1]


def test_unknown_types_are_passed_over_uncounted() -> None:
    def malformed() -> None:
        pytest.fail("an unknown type was called malformed")

    assert parse_text(frame("crystools.monitor", {"cpu": 1}), malformed) is None
    assert parse_text('{"type": "logs"}', malformed) is None
    assert parse_binary(b"\0\0\0\3\0\0\0\1" + b"3text", malformed) is None


def test_numbers_that_only_python_writes_do_not_hide_a_frame() -> None:
    written = f'{{"type": "executed", "data": {{"prompt_id": "{PROMPT}", "node": "2", "output": {{"x": [NaN, 2.5]}}}}}}'
    assert parse_text(written) == Output(PROMPT, "2", (), (2.5,))


def test_halves_of_surrogate_pairs_do_not_pass() -> None:
    found = parse_text(frame("executed", {"prompt_id": PROMPT, "node": "2", "output": {"t": ["a\ud800"]}}))
    assert isinstance(found, Output)
    assert found.values == ("a?",)


def test_lists_are_bounded() -> None:
    found = parse_text(frame("execution_cached", {"prompt_id": PROMPT, "nodes": ["1"] * 20_000}))
    assert isinstance(found, Cached)
    assert len(found.nodes) == MAX_NODES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    "prompt_id",
    "node",
    "display_node",
    "nodes",
    "value",
    "max",
    "output",
    "timestamp",
    "node_id",
    "node_type",
    "exception_message",
    "exception_type",
    "current_inputs",
    "status",
)
FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON))
REFS = st.fixed_dictionaries({"filename": JSON}, optional={"subfolder": JSON, "type": JSON})


@given(kind=st.sampled_from([*EXPECTED, "execution_error", "other"]), data=FIELDS, named=st.booleans())
@settings(max_examples=600, deadline=None)
def test_no_content_of_a_known_frame_raises(kind: str, data: dict[str, Any], named: bool) -> None:
    content = {**data, "prompt_id": PROMPT} if named else data
    found = parse_text(frame(kind, content))
    if isinstance(found, Failed):
        assert len(found.message) <= 500


@given(refs=st.lists(REFS | JSON, max_size=5))
@settings(max_examples=300, deadline=None)
def test_no_output_raises_and_no_reference_leads_out(refs: list[Any]) -> None:
    data = {"prompt_id": PROMPT, "node": "1", "output": {"images": refs}}
    found = parse_text(frame("executed", data))
    assert isinstance(found, Output)
    for ref in found.files:
        assert ".." not in ref.subfolder.split("/")
        assert "/" not in ref.filename


@given(st.binary(max_size=200) | st.text(max_size=200))
@settings(max_examples=500, deadline=None)
def test_no_bytes_raise(raw: bytes | str) -> None:
    parse_text(raw)
    if isinstance(raw, bytes):
        parse_binary(raw)
        parse_binary(b"\0\0\0\4" + raw)
