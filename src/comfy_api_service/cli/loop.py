"""The event loop of processes that serve: uvloop where there is one."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from comfy_api_service.cli.faults import ExitCode

try:
    import uvloop
except ImportError:  # Windows
    FACTORY = None
else:
    FACTORY = uvloop.new_event_loop


def run_fast(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=FACTORY) as runner:
        try:
            runner.run(work)
        except KeyboardInterrupt:
            raise SystemExit(ExitCode.INTERRUPTED) from None
