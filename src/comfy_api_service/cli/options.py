"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_SERVER = "http://127.0.0.1:8000"
_LogFormats = Literal["auto", "json", "console"]
_LogLevels = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

# --- of the client -----------------------------------------------------------------------------------------

Server = Annotated[
    str, typer.Option("--server", envvar="COMFY_API_URL", metavar="URL", help="The service to ask.")
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="COMFY_API_KEY", metavar="KEY", help="Credential, if it asks for one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]

# --- of what serves ----------------------------------------------------------------------------------------

Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on.  [dim]\\[HOST, 127.0.0.1][/dim]", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port; 0 takes a free one.  [dim]\\[PORT, 8000][/dim]"),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this machine although authentication is off.")
]
ComfyuiDir = Annotated[
    Path | None,
    typer.Option(help="Folder of a local ComfyUI to start and supervise.  [dim]\\[COMFYUI_DIR][/dim]"),
]
ComfyuiPython = Annotated[
    str | None,
    typer.Option(
        metavar="PYTHON",
        help="Interpreter for it. Default: its own venv/ or .venv/, else the one that runs this.",
    ),
]
ComfyuiArgs = Annotated[
    str,
    typer.Option(metavar="ARGS", help="More options for it, quoted as in a shell.", show_default=False),
]
LogFormat = Annotated[
    _LogFormats | None,
    typer.Option(help="How events are logged, on stderr.  [dim]\\[LOG_FORMAT, auto][/dim]"),
]
LogLevel = Annotated[
    _LogLevels | None,
    typer.Option(case_sensitive=False, help="Least level that is logged.  [dim]\\[LOG_LEVEL, INFO][/dim]"),
]
