"""What a ComfyUI server says on its socket, as frozen values; `messages.py` makes them from frames.

Nothing here may hold a prompt's text, a path or a traceback of the server.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comfy_api_service.comfyui.files import FileRef


@dataclass(frozen=True, slots=True)
class Started:
    """`execution_start`: the prompt left the queue. `at` is seconds since the epoch by the server's clock."""

    prompt_id: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Cached:
    """`execution_cached`: nodes that will not run; sent on every run, empty when nothing was cached."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """`executing`: a node of the graph that was sent, not of a sub-graph that a node grew."""

    prompt_id: str
    node: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """`progress`: `value` of `maximum` steps of one node."""

    prompt_id: str
    node: str | None
    value: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Output:
    """`executed`: what an output node gave. One node may give several: append, never replace.

    `node` is a node of the graph that was sent. `invalid` counts file references that were refused: an
    answer with any is `errors.OutputInvalid`.
    """

    prompt_id: str
    node: str
    files: tuple[FileRef, ...]
    values: tuple[Any, ...] = ()
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Succeeded:
    prompt_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """`execution_error`; `message` has at most 500 characters, without paths, hosts and input texts."""

    prompt_id: str
    node_id: str | None
    node_type: str
    exception_type: str
    message: str
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Interrupted:
    prompt_id: str
    node_id: str | None


@dataclass(frozen=True, slots=True)
class PreviewFrame:
    """A picture of an unfinished result, or what `SaveImageWebsocket` gives.

    `prompt_id` is None in the older form, which does not tell it: it is then the running prompt's.
    """

    prompt_id: str | None
    media_type: str
    picture: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class QueueRemaining:
    """`status`: prompts running and pending, whoever's they are."""

    count: int


@dataclass(frozen=True, slots=True)
class Idle:
    """`executing` without a node: the prompt is over, its history is written. About 0.3 s after its end."""

    prompt_id: str | None


Message: TypeAlias = (
    Started
    | Cached
    | NodeStarted
    | Stepped
    | Output
    | Succeeded
    | Failed
    | Interrupted
    | PreviewFrame
    | QueueRemaining
    | Idle
)
