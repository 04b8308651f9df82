"""POST to an https URL that a caller gave: the address checked each time, no redirect followed, little of the answer
read, and nothing of it kept but the status and when to come again.

Connections are kept for a while: to the very address that was checked when they were made.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Final

import aiohttp

from comfy_api_service.domain.webhook import Reply, Trouble
from comfy_api_service.outbound.addresses import AddressRefused, Target, target
from comfy_api_service.outbound.names import Checked, Inside, LookUp, Names, NamesBusy, asked_by

SECONDS: Final = 10.0
"""For all of it: name, connection, answer."""
LOOK_UPS: Final = 64
"""Names that are looked up at once; `OF_ONE_ASKER`: for one asker."""
OF_ONE_ASKER: Final = 8
NAME_SECONDS: Final = 30.0
"""How long the addresses of a name are used, checked each time."""
KEPT_SECONDS: Final = 15.0
ANSWER_BYTES: Final = 4096
"""That are read; a longer answer costs its sender the connection."""
_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "comfy-api-service",
}


class Poster:
    """One for a process."""

    def __init__(self, http: aiohttp.ClientSession, *, allow_private: bool, seconds: float) -> None:
        self._http = http
        self._allow_private = allow_private
        self._seconds = seconds

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, asker: str = "") -> Reply:
        """Whatever happens is a reply. `asker`: whose URL it is."""
        begun = time.monotonic()
        status, retry_after = None, None
        try:
            asked = target(url, allow_private=self._allow_private)
            with asked_by(asker):
                async with asyncio.timeout(self._seconds):
                    try:
                        status, retry_after = await self._answer(asked, body, headers)
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as fault:
                        if isinstance(fault, aiohttp.ClientConnectorError):
                            raise
                        # a kept connection may be closed just as it is used
                        status, retry_after = await self._answer(asked, body, headers)
            error = _judged(status)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, AddressRefused) as fault:
            error = _named(fault)
        return Reply(status, error, time.monotonic() - begun, retry_after)

    async def _answer(self, asked: Target, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        async with self._http.post(
            asked.url, data=body, headers={**_HEADERS, **headers}, allow_redirects=False
        ) as response:
            told = response.status, response.headers.get("Retry-After")
            if not await _short(response):
                response.close()
            return told


async def _short(response: aiohttp.ClientResponse) -> bool:
    """Whether the answer is over; its status counts, whatever becomes of the rest."""
    read = 0
    try:
        while read <= ANSWER_BYTES:
            piece = await response.content.read(ANSWER_BYTES)
            if not piece:
                return True
            read += len(piece)
    except (aiohttp.ClientError, OSError):
        return False
    return False


def _judged(status: int) -> Trouble | None:
    if 200 <= status < 300:
        return None
    if status == 410:
        return Trouble.GONE
    return Trouble.REDIRECT if 300 <= status < 400 else Trouble.STATUS


def _named(fault: Exception) -> Trouble:
    if isinstance(fault, AddressRefused | Inside) or isinstance(fault.__cause__, Inside):
        return Trouble.ADDRESS
    if isinstance(fault.__cause__, NamesBusy):
        return Trouble.INTERNAL
    if isinstance(fault, TimeoutError):
        return Trouble.TIMEOUT
    if isinstance(fault, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return Trouble.TLS
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return Trouble.NAME
    return Trouble.CONNECTION


@asynccontextmanager
async def open_poster(
    *,
    allow_private: bool,
    at_once: int,
    seconds: float = SECONDS,
    look_up: LookUp | None = None,
    tls: SSLContext | None = None,
) -> AsyncIterator[Poster]:
    """`allow_private`: also http, other ports and addresses inside. `look_up`, `tls`: as for fetching."""
    names = Names(LOOK_UPS, each=OF_ONE_ASKER, kept_seconds=NAME_SECONDS)
    connector = aiohttp.TCPConnector(
        resolver=Checked(look_up or names.look_up, allow_private=allow_private),
        use_dns_cache=False,
        keepalive_timeout=KEPT_SECONDS,
        limit=at_once,
        ssl=True if tls is None else tls,
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            max_line_size=8190,
            max_field_size=8190,
        ) as http:
            yield Poster(http, allow_private=allow_private, seconds=seconds)
    finally:
        names.close()
