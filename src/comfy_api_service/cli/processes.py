"""Several processes on one port: started, started again when they die, and stopped together."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from subprocess import PIPE

from comfy_api_service.cli.output import say
from comfy_api_service.cli.stopping import StopSignals
from comfy_api_service.cli.supervisor import Backoff


async def keep_running(count: int, arguments: Sequence[str], sockets: Sequence[socket.socket]) -> None:
    """Until a stop signal. Each process is this command with the sockets handed to it, and its number."""
    numbers = [one.fileno() for one in sockets]
    command = [sys.executable, "-m", "comfy_api_service", *arguments]
    command += [part for number in numbers for part in ("--socket", str(number))]
    async with StopSignals() as stop:
        lives = [asyncio.create_task(_keep(number, command, numbers)) for number in range(1, count + 1)]
        try:
            await stop.wait()
            say("stopping …")
        finally:
            for life in lives:
                life.cancel()
            await asyncio.wait(lives)


async def _keep(number: int, command: Sequence[str], sockets: Sequence[int]) -> None:
    """One process, again and again; cancelled, it is asked to stop and waited for."""
    backoff = Backoff()
    while True:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, "--number", str(number), stdin=PIPE, pass_fds=sockets
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        pause = backoff.after(time.monotonic() - began)
        say(f"process {number} ended with {status}; starting again in {pause:g} s")
        await asyncio.sleep(pause)


async def parent_left() -> None:
    """Returns when the process that started this one is gone: its end of the standard input closes."""
    loop = asyncio.get_running_loop()
    left = asyncio.Event()

    def look() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            left.set()

    loop.add_reader(0, look)
    await left.wait()
