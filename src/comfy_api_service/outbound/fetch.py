"""GET of an https URL that a caller gave, as a stream: every address checked, everything bounded.

A name is resolved here, all that it resolves to is checked, and exactly that is connected to: a name that resolves
to something else a moment later changes nothing. Redirects are followed by hand, each checked as if it had been
given. Neither proxies of the environment nor cookies, credentials or compression are used.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ssl import SSLContext
from typing import Final

import aiohttp

from comfy_api_service.outbound.addresses import (
    AddressRefused,
    FetchError,
    FetchTimeout,
    FetchTooLarge,
    Target,
    target,
)
from comfy_api_service.outbound.names import Checked, Inside, LookUp, Names

SECONDS: Final = 10.0
"""For all of it: names, connections, redirects, the file."""
AT_ONCE: Final = 16
"""Fetches in a process; others wait, within their time."""
LOOK_UPS: Final = 8
"""Names that are looked up at once; a thread stays with a slow name server longer than a fetch waits for it."""
REDIRECTS: Final = 3
_REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "comfy-api-service"}
_PIECE: Final = 1 << 16


class Fetcher:
    """One for a process; asks anew for each file and keeps no connection.

    Names are looked up in threads of its own: slow name servers hold up nothing else.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        allow_private: bool = False,
        seconds: float = SECONDS,
        look_up: LookUp | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        """`allow_private`: also http, other ports and addresses inside. `look_up`, `tls`: who knows names, and whom
        to trust; None: the system's.
        """
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._seconds = seconds
        self._names = Names(LOOK_UPS)
        self._resolver = Checked(look_up or self._names.look_up, allow_private=allow_private)
        self._tls = tls
        self._gate = asyncio.Semaphore(AT_ONCE)

    def close(self) -> None:
        """End its threads, as soon as what they look up is told."""
        self._names.close()

    async def chunks(self, url: str) -> AsyncGenerator[bytes]:
        """The file's bytes. Raises `FetchError`: `AddressRefused`, `FetchTooLarge`, `FetchTimeout`."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    await stack.enter_async_context(self._gate)
                    http = await stack.enter_async_context(self._http())
                    response = await self._answer(http, target(url, allow_private=self._allow_private), stack)
                total = 0
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await response.content.read(_PIECE)
                    if not piece:
                        break
                    total += len(piece)
                    if total > self._max_bytes:
                        raise FetchTooLarge("The file is larger than is accepted.")
                    yield piece
            except TimeoutError:
                raise FetchTimeout("The file did not come in time.") from None
            except (aiohttp.ClientError, OSError, ValueError) as fault:
                if isinstance(fault.__cause__, Inside) or isinstance(fault, Inside):
                    raise AddressRefused("This address is not allowed.") from None
                raise FetchError("The file cannot be fetched.") from None

    async def _answer(
        self, http: aiohttp.ClientSession, asked: Target, stack: AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """The answer with the file, redirects followed."""
        for _ in range(REDIRECTS + 1):
            response = await http.get(asked.url, allow_redirects=False, headers=_HEADERS)
            if response.status not in _REDIRECTING:
                await stack.enter_async_context(response)
                self._check(response)
                return response
            response.close()
            place = response.headers.get("Location", "")
            asked = target(place, allow_private=self._allow_private, base=asked.url)
        raise AddressRefused("The URL redirects too often.")

    def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status != 200:
            raise FetchError("The server did not answer with the file.")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("The server sent the file compressed.")
        if (response.content_length or 0) > self._max_bytes:
            raise FetchTooLarge("The file is larger than is accepted.")

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            force_close=True,
            ssl=True if self._tls is None else self._tls,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            trust_env=False,
            auto_decompress=False,
            max_line_size=8190,
            max_field_size=8190,
        ) as http:
            yield http
