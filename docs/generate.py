"""Writes what is in these pages of the code, and the example requests: `python docs/generate.py`."""

import functools
import json
from pathlib import Path
from typing import Any

import bounds
import example_requests
from pydantic_core import PydanticUndefined

from comfy_api_service import __version__
from comfy_api_service.api.app import openapi_text
from comfy_api_service.domain.errors import TABLE
from comfy_api_service.domain.node_policy import CORE, GROUPS
from comfy_api_service.settings import SECRET_FILES, Settings

HERE = Path(__file__).parent
SHOWN_DEFAULTS = {"node_id": "the host's name"}


def errors() -> str:
    """The list of error codes, in the table's order."""
    lines = [
        "# Errors",
        "",
        "Every error answers with the same envelope, whatever raised it:",
        "",
        "```json",
        '{"error": {"code": "…", "message": "…", "details": {}, "request_id": "…", "timestamp": "…"}}',
        "```",
        "",
        "Codes are stable; messages may change. 429 and 503 carry `Retry-After`. Codes marked *job* are met in a",
        "job's `error`; `generate` answers with the status beside them. *Again* says whether the same request may",
        "succeed later.",
        "",
        "| code | status | job | again | means | what to do |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{code}` | {info.http} | {'job' if info.of_job else ''} | {'yes' if info.retryable else ''} "
        f"| {info.means} | {info.remedy} |"
        for code, info in TABLE.items()
    ]
    return "\n".join([*lines, ""])


def settings() -> str:
    """The list of settings, in the order of the class."""
    lines = [
        "# Settings",
        "",
        "Environment variables, or lines in a `.env` file. They are checked at start, every fault named at once,",
        "and what in `.env` is none of them;",
        "`comfy-api doctor` shows the effective ones with secrets hidden. Durations are in seconds, sizes in bytes,",
        f"lists comma-separated. {', '.join(f'`{name}_FILE`' for name in SECRET_FILES)} name files to read the",
        "secrets from, in the environment alone.",
        "",
        "| name | default | what it does |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        aliases = getattr(field.validation_alias, "choices", [])
        others = [alias.upper() for alias in aliases if alias != name]
        also = f" Also read as `{'`, `'.join(others)}`." if others else ""
        lines.append(f"| `{name.upper()}` | {_default(name, field)} | {field.description}{also} |")
    return "\n".join([*lines, ""])


def nodes() -> str:
    """The nodes that the core policy allows, by what they are for."""
    lines = [
        "# Nodes of the core policy",
        "",
        f"The {len(CORE)} classes of ComfyUI itself that callers may use under `core`, and nothing else. Why others",
        "are not among them is told in [WORKFLOWS.md](WORKFLOWS.md#what-is-checked-and-what-may-be-used).",
    ]
    for title, names in GROUPS.items():
        lines += ["", f"## {title[:1].upper()}{title[1:]}", "", ", ".join(f"`{name}`" for name in names)]
    return "\n".join([*lines, ""])


def _default(name: str, field: Any) -> str:
    if name in SHOWN_DEFAULTS:
        return SHOWN_DEFAULTS[name]
    default = field.default
    if default is None or default == () or default is PydanticUndefined:
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


@functools.cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi_text(__version__))
    return found


def limits() -> str:
    """The page as it is, its tables made anew."""
    return bounds.filled((HERE / "LIMITS.md").read_text(encoding="utf-8"))


PAGES = {
    "ERRORS.md": errors,
    "LIMITS.md": limits,
    "NODES.md": nodes,
    "SETTINGS.md": settings,
    "examples/comfy-api.http": lambda: example_requests.http_file(_document()),
    "examples/comfy-api.postman_collection.json": lambda: example_requests.postman(_document()),
}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (HERE / file).write_text(page(), encoding="utf-8")
