"""`simulate`: the simulator alone, as a ComfyUI server to develop against."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comfy_api_service.cli import listening
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.output import examples, say

if TYPE_CHECKING:
    from comfy_api_service.simulator import SimulatorSettings

EXAMPLES = examples(
    "comfy-api simulate",
    "comfy-api simulate --version 0.3.64 --step-seconds 0.5",
    "comfy-api simulate --port 8288 --checkpoint my_model.safetensors --load-seconds 0",
)
Version = Literal["0.3.64", "0.8.0"]


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8188,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    version: Annotated[Version, typer.Option(help="The ComfyUI whose protocol is spoken.")] = "0.8.0",
    newer: Annotated[
        bool, typer.Option("--newer", help="The routes and refusals of servers from about 0.26 on.")
    ] = False,
    step_seconds: Annotated[float, typer.Option(min=0, help="How long a sampling step takes.")] = 0.05,
    load_seconds: Annotated[float, typer.Option(min=0, help="How long loading a model takes.")] = 1.5,
    prompt_seconds: Annotated[
        float | None, typer.Option(min=0, help="If given, each prompt takes just this long.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A checkpoint there is, instead of the usual ones; may be repeated."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep files here instead of in a temporary folder.")
    ] = None,
    previews: Annotated[bool, typer.Option(help="Send previews while sampling.")] = True,
    control: Annotated[
        bool, typer.Option("--control", help="Offer the faults over HTTP, under /_simulator.")
    ] = False,
) -> None:
    """Run a stand-in for a ComfyUI server: same protocol, no GPU, simulated pictures."""
    from comfy_api_service.cli.loop import run_fast  # noqa: PLC0415 - loads uvloop
    from comfy_api_service.simulator import DEFAULT_MODELS, SimulatorSettings  # noqa: PLC0415

    models = dict(DEFAULT_MODELS)
    if checkpoint:
        models["checkpoints"] = tuple(checkpoint)
    settings = SimulatorSettings(
        protocol=version,
        newer=newer,
        seconds_per_step=step_seconds,
        seconds_per_load=load_seconds,
        seconds_per_prompt=prompt_seconds,
        models=models,
        folder=folder,
        previews=previews,
        control=control,
    )
    listening.close(listening.listen(host, port))  # a busy port is told as everywhere
    run_fast(_simulate(settings, host, port))


async def _simulate(settings: "SimulatorSettings", host: str, port: int) -> None:
    from comfy_api_service.cli.stopping import StopSignals  # noqa: PLC0415
    from comfy_api_service.simulator import Simulator  # noqa: PLC0415

    try:
        async with StopSignals() as stop, Simulator(settings, host=host, port=port) as simulator:
            say(f"simulated ComfyUI {settings.protocol} at {simulator.url} (Ctrl-C ends it)")
            await stop.wait()
    except OSError as error:
        raise Fault(f"The simulator cannot start: {error.strerror or error}.") from error
