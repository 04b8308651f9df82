"""Refusals and failures become the error that the job's owner sees."""

import json
from typing import Any

import pytest

from comfy_api_service.comfyui.errors import (
    BackendError,
    BadAnswer,
    DuplicatePrompt,
    NoAnswer,
    OutputInvalid,
    OutputMissing,
    PromptRefused,
    Truncated,
    Unreachable,
    job_error,
)
from comfy_api_service.comfyui.failure import failed
from comfy_api_service.comfyui.messages import Failed, parse_text
from comfy_api_service.comfyui.refusals import MAX_FAULTS, refusal
from comfy_api_service.domain.errors import Code

Recording = list[dict[str, Any]]

REFUSED: dict[str, tuple[Code, str | None]] = {
    "invalid_dangling_link": (Code.INVALID_GRAPH, "8"),
    "invalid_empty": (Code.INVALID_GRAPH, None),
    "invalid_link_type": (Code.INVALID_GRAPH, "8"),
    "invalid_missing_model": (Code.MODEL_NOT_FOUND, "4"),
    "invalid_missing_upload": (Code.INVALID_GRAPH, "1"),
    "missing_model_in_combo_form": (Code.MODEL_NOT_FOUND, "2"),
    "invalid_no_class_type": (Code.INVALID_GRAPH, None),
    "invalid_no_outputs": (Code.INVALID_GRAPH, None),
    "invalid_unknown_node": (Code.NODE_NOT_AVAILABLE, None),
    "invalid_values": (Code.INVALID_GRAPH, "6"),
    "numeric_types_coerced": (Code.INVALID_GRAPH, "1"),
    "info_endpoints": (Code.INVALID_GRAPH, None),
}


def refusals(recording: Recording) -> list[dict[str, Any]]:
    return [
        e["body"]
        for e in recording
        if e["dir"] == "http" and e.get("path") == "/prompt" and e.get("status") == 400
    ]


def test_every_recorded_refusal_has_its_place_in_the_table(recordings: dict[str, Recording]) -> None:
    found = {name.split("/")[1] for name, recording in recordings.items() if refusals(recording)}
    assert found == set(REFUSED)


@pytest.mark.parametrize("scenario", REFUSED)
def test_every_recorded_refusal_has_its_code(
    recordings: dict[str, Recording], version: str, scenario: str
) -> None:
    bodies = refusals(recordings[f"{version}/{scenario}"])
    # 0.3.64 does not check enumerations in their newer form: accepted there, and the loader fails.
    assert bodies or (version, scenario) == ("0.3.64", "missing_model_in_combo_form")
    for body in bodies:
        refused = refusal(body)
        error = job_error(refused)
        assert (error.code, error.node_id) == REFUSED[scenario]
        assert not refused.partly
        assert "/" not in error.message
        assert ".py" not in json.dumps(dict(error.details))
        assert "/" not in json.dumps(dict(error.details))


def test_details_name_each_fault(recordings: dict[str, Recording], version: str) -> None:
    (body,) = refusals(recordings[f"{version}/invalid_values"])
    error = job_error(refusal(body))
    faults = [(f["node_id"], f["input"], f["type"]) for f in error.details["errors"]]
    assert faults == [
        ("6", "text", "required_input_missing"),
        ("3", "sampler_name", "value_not_in_list"),
        ("3", "steps", "value_smaller_than_min"),
    ]
    assert error.message == "CLIPTextEncode.text: Required input is missing"


def test_the_missing_model_and_the_missing_node_are_named(
    recordings: dict[str, Recording], version: str
) -> None:
    (body,) = refusals(recordings[f"{version}/invalid_missing_model"])
    error = job_error(refusal(body))
    assert (error.details["kind"], error.details["model"]) == ("checkpoints", "absent.safetensors")
    (body,) = refusals(recordings[f"{version}/invalid_unknown_node"])
    assert job_error(refusal(body)).details == {"nodes": ["NoSuchNode"]}


def node_error(class_type: str, name: str, kind: str, **info: Any) -> dict[str, Any]:
    error = {
        "type": kind,
        "message": "Failed to convert an input value to a INT value",
        "details": f"{name}, a secret prompt, /opt/x",
        "extra_info": {"input_name": name, **info},
    }
    node = {"errors": [error], "dependent_outputs": [], "class_type": class_type}
    return {"error": {"type": "prompt_outputs_failed_validation"}, "node_errors": {"1": node}}


def test_what_the_caller_wrote_does_not_come_back() -> None:
    body = node_error("KSampler", "steps", "invalid_input_type", received_value="a secret prompt")
    refused = refusal(body)
    error = job_error(refused)
    for told in (str(refused), repr(refused.node_errors), error.message, repr(error.details)):
        assert "secret" not in told
        assert "/opt" not in told


@pytest.mark.parametrize(
    ("class_type", "name", "value", "code"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", "x.safetensors", Code.MODEL_NOT_FOUND),
        ("LoraLoader", "lora_name", "x.safetensors", Code.MODEL_NOT_FOUND),
        ("UnheardOfLoader", "file", "x.gguf", Code.MODEL_NOT_FOUND),
        ("UnheardOfLoader", "device", "tpu", Code.INVALID_GRAPH),
        ("KSampler", "sampler_name", "bogus", Code.INVALID_GRAPH),
        ("CheckpointLoaderSimple", "ckpt_name", 7, Code.INVALID_GRAPH),
    ],
)
def test_only_models_are_missing_models(class_type: str, name: str, value: object, code: Code) -> None:
    body = node_error(class_type, name, "value_not_in_list", received_value=value)
    assert job_error(refusal(body)).code is code


def test_a_model_name_that_is_a_path_is_not_repeated() -> None:
    body = node_error("VAELoader", "vae_name", "value_not_in_list", received_value="/etc/shadow")
    error = job_error(refusal(body))
    assert "shadow" not in error.message + repr(error.details)


def test_a_model_that_is_missed_only_when_it_is_loaded_is_a_missing_model() -> None:
    """0.3.64 does not check enumerations in their newer form: the prompt is accepted, and its loader fails."""
    data = {
        "node_id": "2",
        "node_type": "UpscaleModelLoader",
        "exception_type": "FileNotFoundError",
        "exception_message": "Model in folder 'upscale_models' with filename 'absent.pth' not found.\n",
        "current_inputs": {"model_name": ["absent.pth"]},
    }
    error = job_error(failed("prompt", data))
    assert (error.code, error.node_id) == (Code.MODEL_NOT_FOUND, "2")
    assert error.details["kind"] == "upscale_models"
    data["exception_message"] = "[Errno 2] No such file or directory: '/opt/x'"
    assert job_error(failed("prompt", data)).code is Code.EXECUTION_FAILED


def test_newer_words_for_an_unknown_node() -> None:
    body = {"error": {"type": "missing_node_type", "message": "Node 'X Y' not found."}, "node_errors": {}}
    assert job_error(refusal(body)).code is Code.NODE_NOT_AVAILABLE


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"error": "text"},
        {"error": {"type": 1, "message": ["x"]}, "node_errors": []},
        {"node_errors": {"1": None, "2": {"errors": "x"}, "": {"errors": [{}]}, "3": {"errors": [None]}}},
        {"error": {"type": "a/b", "message": "/opt/x"}},
    ],
)
def test_refusals_of_any_form_are_refusals(body: dict[str, Any]) -> None:
    error = job_error(refusal(body))
    assert error.code is Code.INVALID_GRAPH
    assert error.message
    assert "/" not in error.message


def test_faults_are_bounded() -> None:
    errors = [{"type": "value_not_in_list"}] * 300
    body = {"node_errors": {str(n): {"errors": errors, "class_type": "x"} for n in range(3)}}
    assert len(refusal(body).node_errors) == MAX_FAULTS
    assert len(job_error(refusal(body)).details["errors"]) == 20


def test_a_partly_valid_graph_is_a_refusal(recordings: dict[str, Recording], version: str) -> None:
    (body,) = [
        e["body"]
        for e in recordings[f"{version}/partly_invalid_outputs"]
        if e["dir"] == "http" and e["path"] == "/prompt"
    ]
    refused = refusal(body, partly=True)
    assert refused.partly
    assert refused.error_type == "partly_invalid"
    error = job_error(refused)
    assert (error.code, error.node_id) == (Code.INVALID_GRAPH, "5")


FAILED: dict[str, Code] = {
    "invalid_traversal_load": Code.EXECUTION_FAILED,
    "runtime_error_traversal_save": Code.EXECUTION_FAILED,
    "runtime_error_out_of_memory": Code.OUT_OF_MEMORY,
}


@pytest.mark.parametrize("scenario", FAILED)
def test_every_recorded_failure_has_its_code(
    recordings: dict[str, Recording], version: str, scenario: str
) -> None:
    (data,) = [e["data"] for e in recordings[f"{version}/{scenario}"] if e.get("type") == "execution_error"]
    failure = parse_text(json.dumps({"type": "execution_error", "data": data}))
    assert isinstance(failure, Failed)
    error = job_error(failure)
    assert error.code is FAILED[scenario]
    assert error.node_id == data["node_id"]
    assert data["node_type"] in error.message
    assert error.details["node_type"] == data["node_type"]
    assert "/" not in error.message + json.dumps(dict(error.details))


def failure_of(**data: Any) -> Failed:
    found = parse_text(json.dumps({"type": "execution_error", "data": {"prompt_id": "p", **data}}))
    assert isinstance(found, Failed)
    return found


@pytest.mark.parametrize(
    ("exception_type", "message"),
    [
        ("torch.OutOfMemoryError", "Allocation on device "),
        ("torch.cuda.OutOfMemoryError", ""),
        ("MemoryError", ""),
        ("RuntimeError", "CUDA error: out of memory"),
        ("RuntimeError", "HIP out of memory. Tried to allocate 2.00 GiB"),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 96 GiB for an array"),
        ("RuntimeError", "MPS backend out of memory"),
    ],
)
def test_out_of_memory_in_many_words(exception_type: str, message: str) -> None:
    failure = failure_of(exception_type=exception_type, exception_message=message)
    assert failure.out_of_memory
    assert job_error(failure).code is Code.OUT_OF_MEMORY


def test_other_failures_are_not_out_of_memory() -> None:
    assert not failure_of(exception_type="ValueError", exception_message="memory format").out_of_memory


def test_a_failure_never_tells_the_prompt() -> None:
    failure = failure_of(
        node_id=7,
        node_type="CLIPTextEncode",
        exception_type="ValueError",
        exception_message="cannot tokenize 'a nude cat\\nat night': a nude cat\nat night",
        traceback=["secret"],
        current_inputs={"text": ["a nude cat\nat night"], "clip": [None], "n": 3},
    )
    assert failure.node_id == "7"
    assert failure.message == "cannot tokenize '…': …"
    assert "secret" not in repr(failure)


def test_a_failure_without_words_still_says_something() -> None:
    assert job_error(failure_of()).message == "A node: no reason given"
    assert job_error(failure_of(exception_type="a b/c")).details["exception_type"] == ""


@pytest.mark.parametrize(
    "cause", [OutputMissing("x"), OutputInvalid("x"), Truncated(1, 2)], ids=lambda c: type(c).__name__
)
def test_faults_of_outputs(cause: OutputMissing | OutputInvalid | Truncated) -> None:
    assert job_error(cause).code is Code.OUTPUT_INVALID


def test_only_what_may_have_been_done_says_so() -> None:
    kinds: list[type[BackendError]] = [
        Unreachable, NoAnswer, BadAnswer, PromptRefused, DuplicatePrompt, OutputMissing, OutputInvalid, Truncated,
    ]  # fmt: skip
    assert set(BackendError.__subclasses__()) == set(kinds)
    assert [kind for kind in kinds if kind.maybe_done] == [NoAnswer, BadAnswer]
    assert len({kind.label for kind in kinds}) == len(kinds)
