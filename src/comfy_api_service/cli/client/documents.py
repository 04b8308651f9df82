"""A workflow's file: the graph alone, in either form, or what `workflows show --json` prints."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from comfy_api_service.cli.faults import ExitCode, Fault

_EXPORT: Final = "Export the workflow from ComfyUI's page: File, Export (API)."
_OF_TEMPLATES: Final = ("name", "description", "parameters", "outputs")


def read(path: Path) -> dict[str, Any]:
    """The JSON object in the file; `-` is standard input. Raises `Fault`."""
    shown = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Fault(
            f"{shown} cannot be read: {error.strerror}.", _EXPORT, exit_code=ExitCode.USAGE
        ) from error
    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Fault(f"{shown} is no JSON.", _EXPORT, exit_code=ExitCode.USAGE) from None
    if not isinstance(found, dict):
        raise Fault(f"{shown} holds no JSON object.", _EXPORT, exit_code=ExitCode.USAGE)
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def body_from(document: dict[str, Any]) -> dict[str, Any]:
    """`workflow` with whatever else the file says of it."""
    graph = document.get("workflow")
    if not isinstance(graph, Mapping) or "class_type" in graph:
        return {"workflow": document}
    return {"workflow": graph, **{name: document[name] for name in _OF_TEMPLATES if name in document}}
