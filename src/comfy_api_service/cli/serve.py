"""`serve`: everything in one process, over ComfyUI servers that are there or one that is started here."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfy_api_service.cli import listening
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.options import (
    ComfyuiArgs,
    ComfyuiDir,
    ComfyuiPython,
    Host,
    Insecure,
    LogFormat,
    LogLevel,
    Port,
)
from comfy_api_service.cli.output import examples, stdout
from comfy_api_service.cli.supervisor import local_comfyui, supervised
from comfy_api_service.cli.tls import tls_of
from comfy_api_service.domain.urls import without_password

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

EXAMPLES = examples(
    "comfy-api serve",
    "comfy-api serve --comfyui-url http://gpu1:8188 --comfyui-url http://gpu2:8188",
    "comfy-api serve --comfyui-dir ~/ComfyUI --comfyui-args '--preview-method auto'",
    "comfy-api serve --host 0.0.0.0 --insecure   # a network in which everybody may use it",
)
FIRST_COMFYUI_PORT = 8188


def serve(
    host: Host = None,
    port: Port = None,
    comfyui_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A ComfyUI server; may be repeated.  [dim]\\[COMFYUI_URL, http://127.0.0.1:8188][/dim]",
        ),
    ] = None,
    comfyui_dir: ComfyuiDir = None,
    comfyui_python: ComfyuiPython = None,
    comfyui_args: ComfyuiArgs = "",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for database and results.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
    insecure: Insecure = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
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

    tls = tls_of(settings)
    sockets = listening.listen(settings.host, settings.port)
    url = listening.url_of(settings.host, listening.port_of(sockets), tls=tls is not None)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listening.close, sockets)
        settings = await with_comfyui_dir(settings, python, arguments, stack)
        await server.serve(settings, sockets, url=url, listening=lambda: announce(url, settings), tls=tls)


async def with_comfyui_dir(
    settings: "Settings", python: str | None, arguments: str, stack: contextlib.AsyncExitStack
) -> "Settings":
    """Starts the local ComfyUI that the settings name, if they do; settings with its address."""
    if settings.comfyui_dir is None:
        return settings
    comfyui = local_comfyui(
        settings.comfyui_dir, port=listening.free_port(FIRST_COMFYUI_PORT), python=python, arguments=arguments
    )
    await stack.enter_async_context(supervised(comfyui))
    return with_local(settings, comfyui.url)


def with_local(settings: "Settings", url: str) -> "Settings":
    """The local ComfyUI first; the default address counts only if it was asked for."""
    others = settings.comfyui_url if "comfyui_url" in settings.model_fields_set else ()
    return settings.model_copy(update={"comfyui_url": tuple(dict.fromkeys((url, *others)))})


def announce(url: str, settings: "Settings") -> None:
    console = stdout()
    beyond = listening.beyond(settings.host)
    console.print(f"[bold]comfy-api-service[/bold] listens on [link={url}]{url}[/link]{beyond}")
    console.print(f"  documentation  [link={url}/docs]{url}/docs[/link]")
    console.print(f"  ComfyUI        {', '.join(map(without_password, settings.comfyui_url))}", markup=False)
    console.print(f"  data           {settings.data_dir.absolute()}", markup=False)
