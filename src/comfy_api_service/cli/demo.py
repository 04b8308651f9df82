"""`demo`: the service beside the built-in simulator, with no GPU and no model; it says so."""

import contextlib
import json
import os
import shlex
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfy_api_service.cli import listening
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.output import examples, say, stdout

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

EXAMPLES = examples(
    "comfy-api demo",
    "comfy-api demo --generate",
    'comfy-api demo --generate --prompt "a fox in the snow" --output fox.png',
)
PROMPT = "a lighthouse at dawn, watercolour"
HOST = "127.0.0.1"


def demo(
    generate: Annotated[
        bool, typer.Option("--generate", help="Make one picture at once, through the API, and save it.")
    ] = False,
    prompt: Annotated[str, typer.Option(help="What that picture shall show.")] = PROMPT,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where it is saved; replaced if it is there.  [dim]\\[picture.png in the data folder][/dim]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port.  [dim]\\[PORT, 8000, or a free one if that is in use][/dim]"
        ),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Folder for database and results.")] = Path("data/demo"),
) -> None:
    """Run the service beside a simulated ComfyUI: the whole path, on a machine without a GPU.

    The pictures are simulated: drawings that show prompt, seed, steps and size. It serves until Ctrl-C.
    """
    settings = effective(
        host=HOST, port=port, data_dir=data_dir, log_level=None if "LOG_LEVEL" in os.environ else "WARNING"
    )
    if settings.auth_enabled:
        say("The demo asks nobody for a key: AUTH_ENABLED is for `comfy-api serve`.")
    asked = settings.port
    if port is None:
        sockets, moved = listening.listen_or_free(HOST, asked)
    else:
        sockets, moved = listening.listen(HOST, port), False
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close, sockets)
        from comfy_api_service.cli.loop import run_fast  # noqa: PLC0415 - loads uvloop

        if moved:
            taken = listening.port_of(sockets)
            stdout().print(f"Port {asked} is in use; taking {taken}. For the shell client and the examples:")
            stdout().print(f"  export COMFY_API_URL={listening.url_of(HOST, taken)}")
        order = (prompt, output or data_dir / "picture.png") if generate else None
        run_fast(_demo(settings, sockets, order))


async def _demo(settings: "Settings", sockets: list[socket.socket], order: tuple[str, Path] | None) -> None:
    from comfy_api_service.cli import server  # noqa: PLC0415 - loads the web server
    from comfy_api_service.simulator import Simulator, SimulatorSettings  # noqa: PLC0415

    url = listening.url_of(HOST, listening.port_of(sockets))
    async with Simulator(SimulatorSettings()) as simulator:
        await server.serve(
            settings.model_copy(
                update={
                    "comfyui_url": (simulator.url,),
                    "database_url": None,
                    "allowed_hosts": (),
                    "auth_enabled": False,
                }
            ),
            sockets,
            url=url,
            listening=partial(_announce, url, simulator.url),
            beside=partial(_show, order, jobs=settings.jobs_enabled),
        )


def _announce(url: str, simulator: str) -> None:
    console = stdout()
    console.print(f"[bold]comfy-api-service[/bold] listens on [link={url}]{url}[/link]")
    console.print(f"  documentation  [link={url}/docs]{url}/docs[/link]")
    console.print(f"  simulator      {simulator}")
    console.print("[yellow]The pictures are simulated:[/yellow] no GPU and no model is used.")


async def _show(order: tuple[str, Path] | None, url: str, *, jobs: bool) -> None:
    """Make the picture if one is wanted, then tell how to go on."""
    job_id = None if order is None else await _picture(url, *order)
    prompt = PROMPT if order is None else order[0]
    console = stdout()
    console.print("\nTry it:")
    for line in curls(url, prompt, job_id, jobs=jobs):
        console.print(f"  {line}", markup=False)
    console.print("\nServing until Ctrl-C.")


async def _picture(url: str, prompt: str, target: Path) -> str:
    from comfy_api_service.cli.client.api import Api  # noqa: PLC0415 - loads the HTTP client
    from comfy_api_service.cli.client.bars import bar  # noqa: PLC0415
    from comfy_api_service.cli.client.making import make  # noqa: PLC0415

    async with Api(url) as api:
        with bar() as shown:
            made = await make(api, {"prompt": prompt}, shown)
        paths = await made.save(target, force=True)
    for path in paths:
        stdout().print(f"saved {path}", markup=False)
    return made.job_id


def curls(url: str, prompt: str, job_id: str | None, *, jobs: bool) -> Sequence[str]:
    """Commands for a POSIX shell, good as they stand; without `jobs` those that work with JOBS_ENABLED=false."""
    body = shlex.quote(json.dumps({"prompt": prompt}, ensure_ascii=False))
    post = f"curl -s -H 'Content-Type: application/json' -d {body}"
    job = f"{url}/api/v1/jobs/{job_id}"
    lines = ["# submit and wait for the picture", f"{post} {url}/api/v1/generate"]
    if jobs:
        lines[:0] = ["# submit; the answer tells where to look", f"{post} {url}/api/v1/jobs"]
    if jobs and job_id is not None:
        lines += [
            "# the job, its events, its picture",
            f"curl -s {job}",
            f"curl -sN {job}/events",
            f"curl -s -o picture.png {job}/image",
        ]
    lines += ["# what there is to generate with", f"curl -s {url}/models"]
    return lines
