"""`worker`: drives ComfyUI servers for API processes elsewhere."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfy_api_service.cli.configuration import effective, needs_server
from comfy_api_service.cli.options import ComfyuiArgs, ComfyuiDir, ComfyuiPython, LogFormat, LogLevel
from comfy_api_service.cli.output import examples, say, stdout
from comfy_api_service.cli.serve import with_comfyui_dir
from comfy_api_service.domain.urls import without_password

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

EXAMPLES = examples(
    "DATABASE_URL=postgresql://comfy:secret@db/comfy comfy-api worker --comfyui-url http://gpu1:8188",
    "comfy-api worker --comfyui-dir ~/ComfyUI   # on the GPU box itself",
    "comfy-api worker                           # any ComfyUI server that is registered",
)


def worker(
    comfyui_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A ComfyUI server that it may drive; may be repeated. Without one: any that is registered and "
            "can be reached from here.  [dim]\\[COMFYUI_URL][/dim]",
        ),
    ] = None,
    comfyui_dir: ComfyuiDir = None,
    comfyui_python: ComfyuiPython = None,
    comfyui_args: ComfyuiArgs = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results, unless they go to S3: then for those that wait while it is away.  "
            "[dim]\\[DATA_DIR, ./data][/dim]"
        ),
    ] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run a worker alone, over PostgreSQL; `comfy-api api` answers the callers.

    Any number of them, on any number of machines: they share the ComfyUI servers evenly, and what a dead one drove
    is taken over by the others, with the prompts where they are. The first Ctrl-C or SIGTERM lets running jobs
    finish (SHUTDOWN_GRACE), the second ends it at once.
    """
    settings = effective(
        comfyui_url=tuple(comfyui_url) if comfyui_url else None,
        comfyui_dir=comfyui_dir,
        data_dir=data_dir,
        log_format=log_format,
        log_level=log_level,
    )
    needs_server(settings)
    from comfy_api_service.cli.loop import run_fast  # noqa: PLC0415 - loads uvloop

    run_fast(_run(settings, comfyui_python, comfyui_args))


async def _run(settings: "Settings", python: str | None, arguments: str) -> None:
    from comfy_api_service.cli.stopping import StopSignals  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as stack:
        settings = await with_comfyui_dir(settings, python, arguments, stack)
        stop = await stack.enter_async_context(StopSignals())
        stopped = asyncio.create_task(stop.wait())
        work = asyncio.create_task(_drive(settings, stopped))
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await work
        finally:
            stopped.cancel()
            work.cancel()


async def _drive(settings: "Settings", stopped: "asyncio.Task[None]") -> None:
    from comfy_api_service.bootstrap.worker import worker as opened  # noqa: PLC0415 - loads what the role needs
    from comfy_api_service.cli.loop import settle_memory  # noqa: PLC0415
    from comfy_api_service.cli.pages import pages  # noqa: PLC0415
    from comfy_api_service.cli.starting import raise_file_limit, start_faults, start_logs  # noqa: PLC0415

    raise_file_limit()
    start_logs(settings)
    async with contextlib.AsyncExitStack() as stack:
        with start_faults(settings):
            service = await stack.enter_async_context(opened(settings))
        if stopped.done():
            return
        settle_memory()
        await stack.enter_async_context(pages(settings, service.metrics))
        announce(settings, service.worker.id)
        await asyncio.wait({stopped})
        say("stopping …")
        await service.drain()


def announce(settings: "Settings", worker_id: str) -> None:
    named = "comfyui_url" in settings.model_fields_set
    console = stdout()
    console.print(f"[bold]comfy-api-service[/bold] worker {worker_id} is ready")
    urls = ", ".join(map(without_password, settings.comfyui_url)) if named else "any that is registered"
    console.print(f"  ComfyUI        {urls}", markup=False)
