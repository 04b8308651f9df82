"""An answer that is an error, as the fault that ends a command: what is wrong, line by line, and what to do."""

from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.cli.faults import Fault
from comfy_api_service.domain.errors import TABLE, Code

JOBS_SETTING: Final = "JOBS_ENABLED"
Document = Mapping[str, Any]


class Refused(Fault):
    """The service answered with an error; `code` is one of its own list, or "" from something else."""

    def __init__(
        self, status: int, code: str, message: str, details: Document, retry_after: str | None
    ) -> None:
        lines = lines_of(details)
        super().__init__(
            f"{code}: {message}" if code else message,
            _remedy(code, details, retry_after),
            lines=() if lines == (message,) else lines,
        )
        self.status = status
        self.code = code


class JobsSwitchedOff(Refused):
    """The service takes no jobs: only `generate` works there."""


def refusal(status: int, document: Document, retry_after: str | None) -> Refused:
    error = document.get("error")
    if not isinstance(error, dict):
        error = {"message": f"HTTP {status}"}
    details = error.get("details") or {}
    kind = JobsSwitchedOff if details.get("setting") == JOBS_SETTING else Refused
    return kind(status, str(error.get("code", "")), str(error.get("message", "")), details, retry_after)


def remedy_of(code: str) -> str:
    """What the documentation says to do about a code; "" for one that this version does not know."""
    return TABLE[Code(code)].remedy if code in Code.__members__ else ""


def _remedy(code: str, details: Document, retry_after: str | None) -> str:
    if details.get("setting") == JOBS_SETTING:
        return f"Use `comfy-api generate`, or start the service with {JOBS_SETTING}=true."
    if code == Code.UNAUTHORIZED:
        return "Give a valid key with --api-key or COMFY_API_KEY."
    if code in (Code.VALIDATION_ERROR, Code.INVALID_GRAPH):
        return "Correct what is named above."
    if code == Code.MODEL_NOT_FOUND:
        return "Name a model that a backend has: GET /models lists them."
    remedy = remedy_of(code).replace("`Retry-After` says", f"{retry_after} s" if retry_after else "told")
    return (
        remedy if retry_after is None or retry_after in remedy else f"{remedy} Try again in {retry_after} s."
    )


def lines_of(details: Document) -> tuple[str, ...]:
    """The single faults, of fields and of nodes, and names that are near a wrong one."""
    errors = details.get("errors")
    found = [one for one in (errors if isinstance(errors, list) else []) if isinstance(one, dict)]
    lines = [line_of(one) for one in found]
    count = details.get("count")
    if isinstance(count, int) and count > len(found):
        lines.append(f"and {count - len(found)} more")
    nearest = details.get("nearest")
    if isinstance(nearest, list) and nearest:
        lines.append(f"nearest: {', '.join(map(str, nearest))}")
    return tuple(lines)


def line_of(problem: Document) -> str:
    """`where: what`, where being a field, or a node with its class and input, which the message may say itself."""
    node, class_type, given = (problem.get(name) for name in ("node_id", "class_type", "input"))
    message = str(problem.get("message", ""))
    nearest = problem.get("nearest")
    if isinstance(nearest, list) and nearest:
        message += f" (nearest: {', '.join(map(str, nearest))})"
    if node is None:
        return f"{problem.get('field') or given or problem.get('code') or '?'}: {message}"
    where = f"Node {node}" + (f" ({class_type})" if class_type else "")
    return message if message.startswith(where) else f"{where}{f', {given}' if given else ''}: {message}"
