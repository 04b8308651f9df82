"""Fetching from real servers on this machine, which a resolver of the test's own calls public names."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.support.public_names import Names, certificates, count_as_public
from tests.support.sites import PICTURE, Site, site

from comfy_api_service.outbound import fetch
from comfy_api_service.outbound.addresses import AddressRefused, FetchError, FetchTimeout, FetchTooLarge
from comfy_api_service.outbound.fetch import AT_ONCE, Fetcher


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    return b"".join([chunk async for chunk in fetcher.chunks(url)])


def inner(seconds: float = 10.0) -> Fetcher:
    """As in a closed network: names are not needed to reach the server."""
    return Fetcher(max_bytes=200_000, allow_private=True, seconds=seconds)


async def test_a_file_comes_as_it_is_through_three_redirects() -> None:
    async with site() as server:
        base = f"http://127.0.0.1:{server.port}"
        for path in ("/picture", "/once", "/thrice"):
            assert await fetched(inner(), base + path) == PICTURE
        for path in ("/fourth", "/loop"):
            with pytest.raises(AddressRefused):
                await fetched(inner(), base + path)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/silent", FetchTimeout),
        ("/slow", FetchTimeout),
        ("/endless", FetchTooLarge),
        ("/large", FetchTooLarge),
        ("/gzip", FetchError),
        ("/cut", FetchError),
        ("/absent", FetchError),
    ],
)
async def test_what_goes_wrong_has_its_name_and_tells_no_address(path: str, fault: type[Exception]) -> None:
    async with site() as server:
        with pytest.raises(FetchError) as raised:
            await fetched(inner(seconds=0.5), f"http://127.0.0.1:{server.port}{path}")
        assert type(raised.value) is fault
        assert "127" not in str(raised.value)
        assert raised.value.__suppress_context__ or raised.value.__cause__ is None


async def test_nobody_listens() -> None:
    async with site() as server:
        gone = server.port
    with pytest.raises(FetchError):
        await fetched(inner(), f"http://127.0.0.1:{gone}/picture")


async def test_slow_name_servers_keep_no_thread_that_others_need(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        told.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    fetcher = Fetcher(max_bytes=1000, seconds=0.3)
    try:
        urls = [f"https://n{number}.example.com/" for number in range(2 * AT_ONCE)]
        ended = await asyncio.gather(*(fetched(fetcher, url) for url in urls), return_exceptions=True)
        assert {type(one) for one in ended} == {FetchTimeout}
        async with asyncio.timeout(20):  # for ever, if the threads were those
            await asyncio.to_thread(int)
        fetcher.close()
    finally:
        told.set()


async def test_so_many_are_fetched_at_once_and_the_others_after_them() -> None:
    inside, most = 0, 0
    full = asyncio.Event()

    async def names(host: str, port: int) -> Sequence[str]:
        nonlocal inside, most
        assert host
        assert port
        inside += 1
        most = max(most, inside)
        if inside >= AT_ONCE:
            full.set()
        await full.wait()
        for _ in range(50):  # whoever may come in besides has come by then
            await asyncio.sleep(0)
        inside -= 1
        raise OSError("no such name")

    fetcher = Fetcher(max_bytes=1000, look_up=names)
    urls = [f"https://n{number}.example.com/" for number in range(3 * AT_ONCE)]
    ended = await asyncio.gather(*(fetched(fetcher, url) for url in urls), return_exceptions=True)
    assert {type(one) for one in ended} == {FetchError}
    assert most == AT_ONCE


# --- names: https on port 443 as the rules want it, led to this machine's server by the test's resolver ------------


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["::1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:1"],
        ["100.64.0.7"],
        ["0.0.0.0"],
    ],
)
async def test_a_name_that_leads_inside_is_refused_whatever_else_it_has(found: list[str]) -> None:
    names = Names(inside_example=[found])
    with pytest.raises(AddressRefused) as raised:
        await fetched(Fetcher(max_bytes=1000, look_up=names), "https://inside.example/")
    assert "inside" not in str(raised.value)
    assert names.asked == ["inside.example"]


@asynccontextmanager
async def public(monkeypatch: pytest.MonkeyPatch, names: Names) -> AsyncIterator[tuple[Site, Fetcher]]:
    """This machine's address counts as public; the server has a certificate for the names."""
    served, trusting = certificates("a.example", "b.example")
    async with site(served) as server:
        count_as_public(monkeypatch, fetch, server.port)
        yield server, Fetcher(max_bytes=200_000, look_up=names, tls=trusting)


async def test_a_name_is_looked_up_once_for_each_connection_and_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(a_example=[["127.0.0.1"], ["10.0.0.1"]])
    async with public(monkeypatch, names) as (server, fetcher):
        assert await fetched(fetcher, "https://a.example/picture") == PICTURE
        assert server.asked == [("a.example", "/picture")]
        assert names.asked == ["a.example"]
        with pytest.raises(AddressRefused):  # it leads inside now, and nothing of before is remembered
            await fetched(fetcher, "https://a.example/picture")
        assert len(server.asked) == 1


async def test_a_name_that_leads_inside_after_a_redirect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(a_example=[["127.0.0.1"], ["169.254.169.254"]], b_example=[["10.0.0.1"]])
    async with public(monkeypatch, names) as (server, fetcher):
        with pytest.raises(AddressRefused):
            await fetched(fetcher, "https://a.example/once")
        assert server.asked == [("a.example", "/once")]
    names = Names(a_example=[["127.0.0.1"]], b_example=[["10.0.0.1"]])
    async with public(monkeypatch, names) as (server, fetcher):
        for place in (
            "https://b.example/picture",
            "http://a.example/picture",
            "https://127.0.0.2/",
            "//[::1]/x",
        ):
            with pytest.raises(AddressRefused):
                await fetched(fetcher, f"https://a.example/to?place={place}")
        assert {path for _, path in server.asked} == {"/to"}


async def test_a_certificate_of_another_name_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(c_example=[["127.0.0.1"]])
    async with public(monkeypatch, names) as (server, fetcher):
        with pytest.raises(FetchError):
            await fetched(fetcher, "https://c.example/picture")
        assert server.asked == []


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as server, site() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await fetched(inner(), f"http://127.0.0.1:{server.port}/picture") == PICTURE
        assert proxy.asked == []
