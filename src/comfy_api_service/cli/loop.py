"""The event loop of processes that serve: uvloop where there is one."""

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any

from comfy_api_service.cli.faults import ExitCode

try:
    import uvloop
except ImportError:  # Windows
    FACTORY = None
else:
    FACTORY = uvloop.new_event_loop


SWITCH_SECONDS = 0.0001
"""How long a thread may keep the interpreter while another waits. The default of 5 ms is as long as a whole
submission: the loop would wait that long for the database's thread, and the other way round."""


COLLECT_AFTER = 20_000
"""New objects before the youngest are searched for cycles: the search costs submissions a tenth of their time."""


def settle_memory() -> None:
    """After the start: what was built then lives as long as the process, so it is searched no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


def run_fast(work: Coroutine[Any, Any, None]) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=FACTORY) as runner:
        runner.get_loop().set_exception_handler(_tell)
        try:
            runner.run(work)
        except KeyboardInterrupt:
            raise SystemExit(ExitCode.INTERRUPTED) from None


def _tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody caught; asyncio's own line would have the exception's words in it."""
    import structlog  # noqa: PLC0415 - rarely needed

    structlog.get_logger().error(
        "uncaught_fault", about=context["message"], exc_info=context.get("exception")
    )
