"""Processes that take orders: a JSON object a line on standard input, one a line on standard output back."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

LINE_LIMIT: Final = 64 * 1024 * 1024
Handler = Callable[..., Awaitable[Any]]


async def obey(handlers: Mapping[str, Handler]) -> None:
    """Until standard input ends. `{"order": name, …}` is answered `{"answer": …}` or `{"fault": text}`."""
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while given := await reader.readline():
        arguments = orjson.loads(given)
        try:
            document = {"answer": await handlers[arguments.pop("order")](**arguments)}
        except Exception as fault:  # noqa: BLE001 - told to whoever gave the order
            document = {"fault": f"{type(fault).__name__}: {fault}"}
        sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
        sys.stdout.buffer.flush()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """On uvloop where there is one."""

    async def whole() -> None:
        await main()

    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop  # noqa: PLC0415 - not on every system
        except ImportError:
            asyncio.run(whole())
        else:
            uvloop.run(whole())
