"""Names to addresses: looked up in threads of their own; all that a name resolves to is checked, and exactly that is
connected to.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from comfy_api_service.outbound.addresses import is_public

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name; raises OSError."""


class Names:
    """The system's resolver. A thread stays with a slow name server longer than anybody waits for it, so a name that
    is being looked up is not looked up a second time.
    """

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="names")
        self._under_way: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    def close(self) -> None:
        """End the threads, as soon as what they look up is told."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look_up(self, host: str, port: int) -> list[str]:
        place = (host, port)
        found = self._under_way.get(place)
        if found is None:
            loop = asyncio.get_running_loop()
            found = asyncio.ensure_future(loop.run_in_executor(self._threads, _addresses, host, port))
            self._under_way[place] = found
            found.add_done_callback(lambda done: self._told(place, done))
        return await asyncio.shield(found)

    def _told(self, place: tuple[str, int], done: "asyncio.Future[list[str]]") -> None:
        self._under_way.pop(place, None)
        if not done.cancelled():
            done.exception()  # seen


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
