"""An operator's hook, asked: over HTTP, or a function of a Python package.

The address is the operator's own, so it may be inside. Redirects, proxies of the environment, cookies and compression
are not used; an answer is read up to a bound.
"""

import asyncio
import importlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from comfy_api_service.domain.hook import HookAway, HookFailed

PYTHON: Final = "python:"
MOST_BYTES: Final = 4 << 20
"""Of an answer: the texts of the largest graph, twice."""
AT_ONCE: Final = 32
"""Questions open at once in one process."""
_CONNECT_SECONDS: Final = 10.0
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "comfy-api-service",
}


class HookUnusable(Exception):
    """The Python function cannot be found; the text says why."""


class HttpHook:
    def __init__(self, http: aiohttp.ClientSession, url: str, secret: str | None) -> None:
        self._http = http
        self._url = url
        self._headers = _HEADERS if secret is None else {**_HEADERS, "Authorization": f"Bearer {secret}"}

    async def ask(self, document: Mapping[str, Any]) -> object:
        """Raises `HookFailed`; `HookAway` if nothing answered."""
        body = orjson.dumps(document)
        try:
            try:
                answer = await self._answer(body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                answer = await self._answer(body)  # a kept connection may be closed just as it is used
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            raise HookAway(f"it cannot be reached ({type(fault).__name__})") from None
        try:
            return orjson.loads(answer)
        except ValueError:
            raise HookFailed("its answer is not JSON") from None

    async def _answer(self, body: bytes) -> bytes:
        async with self._http.post(
            self._url, data=body, headers=self._headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise HookFailed(f"it answered with HTTP {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise HookFailed("its answer is compressed")
            found = bytearray()
            async for piece in response.content.iter_any():
                found += piece
                if len(found) > MOST_BYTES:
                    raise HookFailed("its answer is too large")
            return bytes(found)


@asynccontextmanager
async def open_http_hook(url: str, secret: str | None) -> AsyncIterator[HttpHook]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
        trust_env=False,
        auto_decompress=False,
        max_line_size=8190,
        max_field_size=8190,
    ) as http:
        yield HttpHook(http, url, secret)


class PythonHook:
    """A function that takes the document. One that is not `async` runs in a thread of its own, which is left behind
    when its time is over, and counts until it ends.
    """

    def __init__(self, function: Callable[[Mapping[str, Any]], Any]) -> None:
        self._function = function
        self._in_thread = not inspect.iscoroutinefunction(function)
        self._open = 0

    async def ask(self, document: Mapping[str, Any]) -> object:
        """Raises `HookFailed`; `HookAway` if too many calls have not ended."""
        if self._open >= AT_ONCE:
            raise HookAway("too many of its calls have not ended")
        self._open += 1
        ended = self._threaded(document) if self._in_thread else asyncio.ensure_future(self._called(document))
        ended.add_done_callback(self._ended)
        try:
            answer = await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not self._in_thread:
                ended.cancel()
            raise
        if isinstance(answer, _Raised):
            raise HookFailed(f"it raised {answer.name}")
        return answer

    def _ended(self, done: "asyncio.Future[Any]") -> None:
        self._open -= 1
        if not done.cancelled():
            done.exception()  # seen

    async def _called(self, document: Mapping[str, Any]) -> Any:
        try:
            return await self._function(document)
        except Exception as fault:  # noqa: BLE001 - whatever the operator's code raises
            return _Raised(type(fault).__name__)

    def _threaded(self, document: Mapping[str, Any]) -> "asyncio.Future[Any]":
        """Not in a pool: the interpreter waits at its end for the threads of one, even for those that hang."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                found = self._function(document)
            except Exception as fault:  # noqa: BLE001
                found = _Raised(type(fault).__name__)
            try:
                loop.call_soon_threadsafe(ended.set_result, found)
            except RuntimeError:
                return  # the loop has ended before

        threading.Thread(target=run, name="prompt hook", daemon=True).start()
        return ended


class _Raised:
    """What the function raised; its text could have the prompt."""

    def __init__(self, name: str) -> None:
        self.name = name


def python_hook(address: str) -> PythonHook:
    """The function that `python:package.module:function` names. Raises `HookUnusable`."""
    module_name, _, function_name = address.removeprefix(PYTHON).partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as fault:  # noqa: BLE001 - whatever the operator's code raises as it is loaded
        raise HookUnusable(f"{module_name} cannot be imported ({type(fault).__name__})") from None
    if not callable(function):
        raise HookUnusable(f"{module_name} has no function {function_name}")
    return PythonHook(function)
