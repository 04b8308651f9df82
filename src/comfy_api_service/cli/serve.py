"""`serve`: everything in one process, over ComfyUI servers that are there or one that is started here."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comfy_api_service.cli import listening
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.doctor.shown import without_password
from comfy_api_service.cli.output import examples, stdout
from comfy_api_service.cli.supervisor import local_comfyui, supervised

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

EXAMPLES = examples(
    "comfy-api serve",
    "comfy-api serve --comfyui-url http://gpu1:8188 --comfyui-url http://gpu2:8188",
    "comfy-api serve --comfyui-dir ~/ComfyUI --comfyui-args '--preview-method auto'",
    "comfy-api serve --host 0.0.0.0 --insecure   # a network in which everybody may use it",
)
FIRST_COMFYUI_PORT = 8188
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def serve(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on.  [dim]\\[HOST, 127.0.0.1][/dim]", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one.  [dim]\\[PORT, 8000][/dim]"),
    ] = None,
    comfyui_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A ComfyUI server; may be repeated.  [dim]\\[COMFYUI_URL, http://127.0.0.1:8188][/dim]",
        ),
    ] = None,
    comfyui_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of a local ComfyUI to start and supervise.  [dim]\\[COMFYUI_DIR][/dim]"),
    ] = None,
    comfyui_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="Interpreter for it. Default: its own venv/ or .venv/, else the one that runs this.",
        ),
    ] = None,
    comfyui_args: Annotated[
        str,
        typer.Option(metavar="ARGS", help="More options for it, quoted as in a shell.", show_default=False),
    ] = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for database and results.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine although authentication is off.")
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How events are logged, on stderr.  [dim]\\[LOG_FORMAT, auto][/dim]"),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            case_sensitive=False, help="Least level that is logged.  [dim]\\[LOG_LEVEL, INFO][/dim]"
        ),
    ] = None,
) -> None:
    """Run the service: API and worker in one process, SQLite, files in ./data.

    The first Ctrl-C or SIGTERM lets running jobs finish (SHUTDOWN_GRACE), the second ends it at once: waiting
    jobs are kept in either case. Every other setting is an environment variable; see `comfy-api doctor`.
    """
    settings = effective(
        host=host,
        port=port,
        comfyui_url=tuple(comfyui_url) if comfyui_url else None,
        comfyui_dir=comfyui_dir,
        data_dir=data_dir,
        log_format=log_format,
        log_level=log_level,
    )
    listening.refuse_exposure(settings.host, auth_enabled=settings.auth_enabled, insecure=insecure)
    from comfy_api_service.cli.loop import run_fast  # noqa: PLC0415 - loads uvloop

    run_fast(_serve(settings, comfyui_python, comfyui_args))


async def _serve(settings: "Settings", python: str | None, arguments: str) -> None:
    from comfy_api_service.cli import server  # noqa: PLC0415 - loads the web server

    sockets = listening.listen(settings.host, settings.port)
    url = listening.url_of(settings.host, listening.port_of(sockets))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listening.close, sockets)
        if settings.comfyui_dir is not None:
            comfyui = local_comfyui(
                settings.comfyui_dir,
                port=listening.free_port(FIRST_COMFYUI_PORT),
                python=python,
                arguments=arguments,
            )
            settings = with_local(settings, comfyui.url)
            await stack.enter_async_context(supervised(comfyui))
        await server.serve(settings, sockets, url=url, listening=lambda: announce(url, settings))


def with_local(settings: "Settings", url: str) -> "Settings":
    """The local ComfyUI first; the default address counts only if it was asked for."""
    others = settings.comfyui_url if "comfyui_url" in settings.model_fields_set else ()
    return settings.model_copy(update={"comfyui_url": tuple(dict.fromkeys((url, *others)))})


def announce(url: str, settings: "Settings") -> None:
    console = stdout()
    console.print(f"[bold]comfy-api-service[/bold] listens on [link={url}]{url}[/link]")
    console.print(f"  documentation  [link={url}/docs]{url}/docs[/link]")
    console.print(f"  ComfyUI        {', '.join(map(without_password, settings.comfyui_url))}", markup=False)
    console.print(f"  data           {settings.data_dir.absolute()}", markup=False)
