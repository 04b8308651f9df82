"""`python -m comfy_api_service.simulator`: a simulated server as a process of its own."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from .server import Simulator
from .settings import DEFAULT_MODELS, SimulatorSettings


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m comfy_api_service.simulator", description=__doc__)
    default = SimulatorSettings()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0: any free one, printed at the start")
    parser.add_argument("--protocol", choices=("0.3.64", "0.8.0"), default=default.protocol)
    parser.add_argument("--newer", action="store_true", help="the routes and refusals of newer servers")
    parser.add_argument("--folder", type=Path, help="keep files here instead of in a temporary folder")
    parser.add_argument("--seconds-per-step", type=float, default=default.seconds_per_step)
    parser.add_argument("--seconds-per-load", type=float, default=default.seconds_per_load)
    parser.add_argument("--seconds-per-prompt", type=float)
    parser.add_argument("--cleanup-seconds", type=float, default=default.cleanup_seconds)
    parser.add_argument("--resident-models", type=int, default=default.resident_models)
    parser.add_argument("--no-previews", action="store_true")
    parser.add_argument("--fixed-output", type=Path, help="every saved picture is this file")
    parser.add_argument(
        "--checkpoint", action="append", help="a checkpoint there is, instead of the usual ones"
    )
    parser.add_argument("--control", action="store_true", help="offer the faults under /_simulator")
    return parser.parse_args()


def _settings(given: argparse.Namespace) -> SimulatorSettings:
    models = dict(DEFAULT_MODELS)
    if given.checkpoint:
        models["checkpoints"] = tuple(given.checkpoint)
    return SimulatorSettings(
        protocol=given.protocol,
        newer=given.newer,
        folder=given.folder,
        seconds_per_step=given.seconds_per_step,
        seconds_per_load=given.seconds_per_load,
        seconds_per_prompt=given.seconds_per_prompt,
        cleanup_seconds=given.cleanup_seconds,
        resident_models=given.resident_models,
        previews=not given.no_previews,
        fixed_output=given.fixed_output.read_bytes() if given.fixed_output else None,
        models=models,
        control=given.control,
    )


async def _main(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Simulator(_settings(given), host=given.host, port=given.port) as simulator:
        sys.stdout.write(f"simulated ComfyUI at {simulator.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_arguments()))
