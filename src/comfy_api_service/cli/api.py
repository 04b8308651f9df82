"""`api`: the HTTP API by itself, in one process or several, over a database that workers share with it."""

import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfy_api_service.cli import listening
from comfy_api_service.cli.configuration import effective, needs_server
from comfy_api_service.cli.options import Host, Insecure, LogFormat, LogLevel, Port
from comfy_api_service.cli.output import examples, stdout
from comfy_api_service.cli.tls import tls_of

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

EXAMPLES = examples(
    "DATABASE_URL=postgresql://comfy:secret@db/comfy comfy-api api",
    "comfy-api api --workers 4 --host 0.0.0.0 --insecure   # behind a proxy that authenticates",
)


def api(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer on the port.")] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results, unless they go to S3, and for the key that signs links, unless SECRET_KEY "
            "is set; the same for all.  [dim]\\[DATA_DIR, ./data][/dim]"
        ),
    ] = None,
    insecure: Insecure = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    shared: Annotated[list[int] | None, typer.Option("--socket", hidden=True)] = None,
    number: Annotated[int, typer.Option(hidden=True)] = 1,
) -> None:
    """Run the API alone, over PostgreSQL; `comfy-api worker` drives the ComfyUI servers.

    Any number of them, on any number of machines. Needs no way to a ComfyUI server. REDIS_URL lets callers see
    progress and jobs start at once; without it both wait for the next look at the database.
    """
    settings = effective(
        host=host,
        port=port,
        data_dir=data_dir,
        log_format=log_format,
        log_level=log_level,
        quiet=bool(shared),
    )
    needs_server(settings)
    listening.refuse_exposure(settings.host, auth_enabled=settings.auth_enabled, insecure=insecure)
    tls = tls_of(settings)
    from comfy_api_service.cli.loop import run_fast  # noqa: PLC0415 - loads uvloop
    from comfy_api_service.cli.pages import port_of  # noqa: PLC0415 - loads a web server

    if shared:
        sockets = [socket.socket(fileno=number) for number in shared]
        run_fast(_serve(settings, sockets, tls, child=True, number=number))
        return
    port_of(settings, workers)
    sockets = listening.listen(settings.host, settings.port)
    try:
        if workers == 1:
            run_fast(_serve(settings, sockets, tls, child=False, number=1))
        else:
            from comfy_api_service.cli.processes import keep_running  # noqa: PLC0415

            announce(settings, sockets, workers)
            run_fast(keep_running(workers, sys.argv[1:], sockets))
    finally:
        listening.close(sockets)


async def _serve(
    settings: "Settings",
    sockets: list[socket.socket],
    tls: ssl.SSLContext | None,
    *,
    child: bool,
    number: int,
) -> None:
    from comfy_api_service.cli import server  # noqa: PLC0415 - loads the web server
    from comfy_api_service.cli.processes import parent_left  # noqa: PLC0415

    url = _url(settings, sockets)
    await server.serve(
        settings,
        sockets,
        url=url,
        listening=(lambda: None) if child else (lambda: announce(settings, sockets, 1)),
        role="api",
        tls=tls,
        stop_too=parent_left if child else None,
        number=number,
    )


def _url(settings: "Settings", sockets: list[socket.socket]) -> str:
    tls = settings.tls_cert_file is not None
    return listening.url_of(settings.host, listening.port_of(sockets), tls=tls)


def announce(settings: "Settings", sockets: list[socket.socket], workers: int) -> None:
    url = _url(settings, sockets)
    console = stdout()
    beyond = listening.beyond(settings.host)
    console.print(f"[bold]comfy-api-service[/bold] listens on [link={url}]{url}[/link]{beyond}")
    console.print(f"  documentation  [link={url}/docs]{url}/docs[/link]")
    console.print(f"  role           api, {workers} process{'es' if workers > 1 else ''}")
    first = settings.metrics_port
    if first is not None:
        ports = f"port {first}" if workers == 1 else f"ports {first} to {first + workers - 1}, one a process"
        console.print(f"  metrics        {ports}")
