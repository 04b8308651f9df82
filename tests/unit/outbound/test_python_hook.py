"""A hook that is a function: what hangs in it is bounded, and keeps no process from ending."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from comfy_api_service.domain.hook import HookAway
from comfy_api_service.outbound.hook import AT_ONCE, PythonHook

HANGING = """
import asyncio, threading
from comfy_api_service.outbound.hook import PythonHook

async def main():
    hook = PythonHook(lambda document: threading.Event().wait())
    try:
        async with asyncio.timeout(0.1):
            await hook.ask({})
    except TimeoutError:
        print("ended")

asyncio.run(main())
"""


async def timed_out(hook: PythonHook) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await hook.ask({})


async def test_calls_that_hang_are_bounded_and_count_until_they_end() -> None:
    go, began = threading.Event(), []

    def hangs(_: Mapping[str, Any]) -> Any:
        began.append(1)
        go.wait(30)
        return {"action": "allow"}

    hook = PythonHook(hangs)
    for _ in range(AT_ONCE):
        await timed_out(hook)
    for _ in range(3):
        with pytest.raises(HookAway):
            await hook.ask({})
    assert len(began) == AT_ONCE
    go.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await hook.ask({}) == {"action": "allow"}
                break
            except HookAway:
                await asyncio.sleep(0.01)


async def test_a_call_that_waits_is_ended() -> None:
    ended = asyncio.Event()

    async def waits(_: Mapping[str, Any]) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await timed_out(PythonHook(waits))
    async with asyncio.timeout(30):
        await ended.wait()


def test_a_process_ends_beside_a_call_that_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
