"""What can go wrong between this service and a ComfyUI server.

    BackendError
    ├── Unreachable        nothing was sent: refused, no such name, no connection in time
    ├── NoAnswer           sent, the answer never came: a prompt may be there, look it up before posting again
    ├── BadAnswer          an answer that is none: status ≥ 500, not JSON, cut short
    │   ├── AnswerTooLarge     more bytes than are read
    │   └── AnswerInvalid      whole, and not what the protocol says
    ├── PromptRefused      the graph is at fault (400, or 200 with `node_errors`)
    ├── DuplicatePrompt    409: the prompt id is known there
    ├── OutputMissing      404: the file is not there (any more)
    ├── OutputInvalid      a file reference that leads out of the output folders
    └── Truncated          a file that ended before its length

No error's text names a path, a host or what the caller wrote; the cause that it is raised from may.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from comfy_api_service.comfyui.cleaning import clean
from comfy_api_service.comfyui.message_types import Failed
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import model_of
from comfy_api_service.domain.job import JobError


class BackendError(Exception):
    """A call to a ComfyUI server that did not do what it should; the text is safe to show."""

    label = "error"
    """The status that an observer is told; one of a few words."""
    maybe_done = False
    """True if the server may have done what was asked all the same."""


class Unreachable(BackendError):
    label = "unreachable"


class NoAnswer(BackendError):
    label = "no_answer"
    maybe_done = True


class BadAnswer(BackendError):
    """`status` is that of HTTP; None when no status came."""

    label = "bad_answer"
    maybe_done = True

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AnswerTooLarge(BadAnswer):
    """More bytes than are read; asking again would bring as many."""


class AnswerInvalid(BadAnswer):
    """The answer is whole, and not what the protocol says."""


@dataclass(frozen=True, slots=True)
class NodeFault:
    """One fault of one node. `error_type` is ComfyUI's word; `value` is told only of enumerations."""

    node_id: str
    class_type: str
    input: str | None
    error_type: str
    message: str
    value: str | None = None


class PromptRefused(BackendError):
    """The server will not run the graph, or not all of it.

    `partly`: the valid outputs run, the prompt is in the queue and has to be taken out.
    """

    label = "refused"

    def __init__(
        self, error_type: str, message: str, node_errors: tuple[NodeFault, ...] = (), *, partly: bool = False
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.node_errors = node_errors
        self.partly = partly


class DuplicatePrompt(BackendError):
    label = "duplicate"


class OutputMissing(BackendError):
    label = "missing"


class OutputInvalid(BackendError):
    label = "invalid"


class Truncated(BackendError):
    """`received` of `expected` bytes came; `expected` is None if no length was announced."""

    label = "truncated"

    def __init__(self, received: int, expected: int | None) -> None:
        super().__init__("A file from the backend ended before its length.")
        self.received = received
        self.expected = expected


_UNKNOWN_NODE: Final = re.compile(r"node '?(?P<name>.{1,128}?)'? (?:does not exist|not found)")
_UNLOADABLE: Final = re.compile(r"Model in folder '(?P<kind>\w{1,64})' with filename '.*' not found")
"""Of loaders whose list 0.3.64 does not check: it accepts the prompt, and the node fails."""
_UNKNOWN_TYPES: Final = frozenset({"missing_node_type", "node_not_found"})


def job_error(cause: PromptRefused | Failed | OutputMissing | OutputInvalid | Truncated) -> JobError:
    """The job's error. Nothing in it names a path, a host or a prompt; details are bounded."""
    match cause:
        case PromptRefused():
            return _refused(cause)
        case Failed():
            return _failed(cause)
        case OutputMissing():
            return JobError(Code.OUTPUT_INVALID, "The backend no longer has the output file.")
        case OutputInvalid():
            return JobError(Code.OUTPUT_INVALID, "The backend named an output outside its output folders.")
        case Truncated():
            return JobError(Code.OUTPUT_INVALID, "The output file came incomplete.")


def _failed(failed: Failed) -> JobError:
    who = failed.node_type or "A node"
    why = failed.message or failed.exception_type or "no reason given"
    details = {"node_type": failed.node_type, "exception_type": failed.exception_type}
    if failed.node_id is not None:
        details["node_id"] = failed.node_id
    if failed.out_of_memory:
        message = f"{who} ran out of memory."
        return JobError(Code.OUT_OF_MEMORY, message, details, failed.node_id)
    if absent := _UNLOADABLE.search(failed.message):
        details["kind"] = absent["kind"]
        return JobError(Code.MODEL_NOT_FOUND, f"{who}: {why}", details, failed.node_id)
    return JobError(Code.EXECUTION_FAILED, f"{who}: {why}", details, failed.node_id)


def _refused(refused: PromptRefused) -> JobError:
    for fault in refused.node_errors:
        model = _model(fault)
        if model is not None:
            kind, name = model[0], clean(model[1].replace("\\", "/"), longest=256)
            details: dict[str, Any] = {"kind": kind, "model": name, "errors": _shown(refused)}
            return JobError(
                Code.MODEL_NOT_FOUND, f"The backend has no model {name!r}.", details, fault.node_id
            )
    unknown = _UNKNOWN_NODE.search(refused.message)
    if refused.error_type in _UNKNOWN_TYPES or (refused.error_type == "invalid_prompt" and unknown):
        named = {"nodes": [unknown["name"]]} if unknown else {}
        message = f"The backend has no node {unknown['name']!r}." if unknown else refused.message
        return JobError(Code.NODE_NOT_AVAILABLE, message, named)
    if not refused.node_errors:
        return JobError(Code.INVALID_GRAPH, refused.message, {"type": refused.error_type})
    first = refused.node_errors[0]
    where = f"{first.class_type or 'node'}.{first.input}" if first.input else first.class_type or "node"
    return JobError(
        Code.INVALID_GRAPH,
        f"{where}: {first.message}",
        {"type": refused.error_type, "errors": _shown(refused)},
        first.node_id,
    )


def _model(fault: NodeFault) -> tuple[str, str] | None:
    """(kind, name) of the model that the fault says is absent."""
    if fault.error_type != "value_not_in_list" or fault.input is None:
        return None
    return model_of(fault.class_type, fault.input, fault.value)


def _shown(refused: PromptRefused) -> list[dict[str, str | None]]:
    return [
        {
            "node_id": fault.node_id,
            "class_type": fault.class_type,
            "input": fault.input,
            "type": fault.error_type,
            "message": fault.message,
        }
        for fault in refused.node_errors[:20]
    ]
