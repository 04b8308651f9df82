"""Names to addresses: looked up in threads of their own; all that a name resolves to is checked, and exactly that is
connected to.

A thread stays with a slow name server longer than anybody waits for it, so threads are what is shared out: whoever asks
for many names that nobody answers for has few of them, and waits by itself.
"""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from comfy_api_service.outbound.addresses import is_public

WAIT_SECONDS: Final = 5.0
"""How long a name waits for a thread."""
KEPT_MOST: Final = 4096
"""Names whose addresses are kept."""

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name; raises OSError."""
_asker: ContextVar[str] = ContextVar("asker", default="")


@contextlib.contextmanager
def asked_by(asker: str) -> Iterator[None]:
    """Whose names are looked up in here."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


class NamesBusy(OSError):
    """No thread was free for the name: it may be as good as any."""


class Names:
    """The system's resolver. A name that is being looked up is not looked up a second time for the same asker."""

    def __init__(self, at_once: int, *, each: int | None = None, kept_seconds: float = 0.0) -> None:
        """`each`: most names of one asker at once; `kept_seconds`: how long what was found is good for all."""
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="names")
        self._free = at_once
        self._each = at_once if each is None else each
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._under_way: dict[tuple[str, str, int], asyncio.Task[list[str]]] = {}
        self._kept_seconds = kept_seconds
        self._kept: dict[tuple[str, int], tuple[float, list[str]]] = {}

    def close(self) -> None:
        """End the threads, as soon as what they look up is told."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look_up(self, host: str, port: int) -> list[str]:
        """Raises `NamesBusy`, as any `OSError`."""
        until, kept = self._kept.get((host, port), (0.0, []))
        if time.monotonic() < until:
            return kept
        place = (_asker.get(), host, port)
        found = self._under_way.get(place)
        if found is None:
            found = asyncio.create_task(self._found(*place), name="name")
            self._under_way[place] = found
            found.add_done_callback(lambda done: self._told(place, done))
        return await asyncio.shield(found)

    def _told(self, place: tuple[str, str, int], done: "asyncio.Task[list[str]]") -> None:
        self._under_way.pop(place, None)
        if not done.cancelled():
            done.exception()  # seen

    async def _found(self, asker: str, host: str, port: int) -> list[str]:
        await self._turn(asker)
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._threads, _addresses, host, port)
        finally:
            self._give(asker)
        if self._kept_seconds:
            self._kept.pop((host, port), None)
            self._kept[host, port] = (time.monotonic() + self._kept_seconds, found)
            while len(self._kept) > KEPT_MOST:
                del self._kept[next(iter(self._kept))]
        return found

    async def _turn(self, asker: str) -> None:
        """Until there is a thread for this asker: those who came first have it first."""
        if self._free and self._taken[asker] < self._each:
            self._take(asker)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asker, turn))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except TimeoutError:
            if turn.cancelled():  # else it came at the last moment
                raise NamesBusy("too many names are being looked up") from None
        finally:
            self._waiting = [one for one in self._waiting if one[1] is not turn]

    def _take(self, asker: str) -> None:
        self._free -= 1
        self._taken[asker] += 1

    def _give(self, asker: str) -> None:
        self._free += 1
        self._taken[asker] -= 1
        if not self._taken[asker]:
            del self._taken[asker]
        for waiting, turn in self._waiting:
            if not self._free:
                return
            if self._taken[waiting] < self._each and not turn.done():
                self._take(waiting)
                turn.set_result(None)


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Inside(OSError):
    """A name that resolves to an address inside."""


class Checked(AbstractResolver):
    """What connections are made to: all that the name resolves to, if all of it is public."""

    def __init__(self, look_up: LookUp, *, allow_private: bool) -> None:
        self._look_up = look_up
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # all that it has is checked
        found = await self._look_up(host, port)
        if not found:
            raise OSError("no address")
        results: list[ResolveResult] = []
        for text in found:
            address = ip_address(text)
            if not (self._allow_private or is_public(address)):
                raise Inside("an address inside")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""
