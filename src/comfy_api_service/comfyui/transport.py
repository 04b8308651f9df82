"""HTTP to one server: bounded answers, each fault of the line as one of this package's errors.

Redirects are not followed (a server must not send this process elsewhere), and what was not answered is never
sent again here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import aiohttp

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.errors import (
    AnswerInvalid,
    AnswerTooLarge,
    BackendError,
    BadAnswer,
    NoAnswer,
    Unreachable,
)

Observer: TypeAlias = Callable[[str, str, float], None]
"""Called with the route's name, the status (of HTTP, or an error's `label`) and seconds, once a request."""

MAX_ANSWER: Final = 64 << 20
"""Bytes of an answer that is JSON."""
_PARSE_HERE: Final = 256 << 10
"""Bytes of JSON that are parsed on the loop (under 1 ms); more goes to a thread."""
_KEEP_ALIVE: Final = 25.0
_HEADERS: Final = {"Accept-Encoding": "identity"}
"""Compressed answers have no length that a file could be checked against."""


def open_http(*, connections_per_backend: int = 0) -> aiohttp.ClientSession:
    """The one session of a process, for all backends; whoever opens it closes it. 0: no bound.

    Its connections are kept 25 s, less than ComfyUI keeps them (75 s), so that none is closed just as it is
    used again. aiohttp sets TCP_NODELAY on each. Cookies are not kept.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            limit_per_host=connections_per_backend,
            keepalive_timeout=_KEEP_ALIVE,
            ttl_dns_cache=30,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of at most `MAX_ANSWER` bytes."""

    status: int
    body: bytes

    async def json(self) -> Any:
        """The body's value; parsed in a thread if it is large. Raises BadAnswer."""
        try:
            if len(self.body) <= _PARSE_HERE:
                return wire.loads(self.body)
            return await asyncio.to_thread(wire.loads, self.body)
        except wire.Malformed as fault:
            raise AnswerInvalid("The backend's answer is not JSON.", status=self.status) from fault


def unexpected(status: int) -> BadAnswer:
    return BadAnswer(f"The backend answered with status {status}.", status=status)


class Transport:
    """Requests to one server. Times are seconds."""

    def __init__(
        self,
        url: str,
        http: aiohttp.ClientSession,
        *,
        observer: Observer | None,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        """`read_timeout` bounds each silence of the server, not the whole of a transfer."""
        self.url = url.rstrip("/")
        self.http = http
        self.connect_timeout = connect_timeout
        self._observer = observer
        self._read_timeout = read_timeout

    async def request(
        self, method: str, route: str, path: str, *, total: float | None = None, **content: Any
    ) -> Answer:
        """The answer, whatever its status. `route` names the path for the observer.

        `total` bounds the whole and each silence in it; by default a silence is bounded by the read
        time-out, the whole by twice that. `content` is `data`, `params` or `headers` of aiohttp. Raises
        Unreachable, NoAnswer, BadAnswer, AnswerTooLarge.
        """
        silence = total or self._read_timeout
        whole = self.connect_timeout + (total or 2 * self._read_timeout)
        async with self.open(method, route, path, silence=silence, total=whole, **content) as response:
            return Answer(response.status, await _read(response))

    @asynccontextmanager
    async def open(
        self,
        method: str,
        route: str,
        path: str,
        *,
        silence: float | None = None,
        total: float | None = None,
        **content: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer with its body unread. Raises Unreachable, NoAnswer; tells the observer at the end."""
        timeout = aiohttp.ClientTimeout(
            total=total,
            connect=self.connect_timeout,
            sock_connect=self.connect_timeout,
            sock_read=silence or self._read_timeout,
        )
        headers = {**_HEADERS, **content.pop("headers", {})}
        began = time.perf_counter()
        status = "canceled"
        try:
            response = await self._send(method, self.url + path, timeout=timeout, headers=headers, **content)
            status = str(response.status)
            async with response:
                yield response
        except BackendError as fault:
            if status in {"canceled", "200"}:
                status = fault.label
            raise
        finally:
            if self._observer is not None:
                self._observer(route, status, time.perf_counter() - began)

    async def _send(self, method: str, url: str, **content: Any) -> aiohttp.ClientResponse:
        """The answer's status and headers. The order of the clauses is aiohttp's tree, from the leaves."""
        try:
            return await self.http.request(method, url, allow_redirects=False, **content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as fault:
            raise Unreachable("The backend cannot be reached.") from fault
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as fault:
            raise BadAnswer("The backend's answer is not HTTP.") from fault
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise NoAnswer("The backend did not answer.") from fault


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises BadAnswer if it is cut short or too large."""
    length = response.content_length
    if length is not None and length > MAX_ANSWER:
        raise AnswerTooLarge("The backend's answer is too large.", status=response.status)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER:
                raise AnswerTooLarge("The backend's answer is too large.", status=response.status)
            chunks.append(chunk)
    except (aiohttp.ClientError, TimeoutError, OSError) as fault:
        raise BadAnswer("The backend's answer was cut short.", status=response.status) from fault
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
