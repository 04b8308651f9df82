"""Answers leave in one piece, and nothing is kept back or put in another order."""

import asyncio
from types import SimpleNamespace
from typing import Any

from comfy_api_service.cli.http import Joining, JoiningProtocol
from comfy_api_service.cli.server import _config


class Wire:
    """A transport that notes what reaches the system, a call a line."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.calls.append(b"".join(pieces))

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


def joining() -> tuple[Joining, list[Any]]:
    wire = Wire()
    return Joining(wire), wire.calls  # type: ignore[arg-type]


async def test_head_and_body_are_one_write() -> None:
    transport, calls = joining()
    transport.write(HEAD)
    assert calls == []
    transport.write(b"{}")
    assert calls == [HEAD + b"{}"]
    await asyncio.sleep(0)
    assert calls == [HEAD + b"{}"]


async def test_a_head_does_not_wait_for_a_body_that_comes_later() -> None:
    transport, calls = joining()
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert calls == [HEAD]
    transport.write(b"{}")
    assert calls == [HEAD, b"{}"]


async def test_a_closed_connection_has_sent_its_head() -> None:
    transport, calls = joining()
    transport.write(HEAD)
    transport.close()
    assert calls == [HEAD, "close"]
    assert transport.is_closing()


async def test_answers_to_requests_sent_at_once_keep_their_order() -> None:
    transport, calls = joining()
    for body in (b"1", b"2"):
        transport.write(HEAD)
        transport.write(body)
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert calls == [HEAD + b"1", HEAD + b"2", HEAD]


def test_the_server_joins_and_keeps_connections_longer_than_those_that_send_on_them() -> None:
    service: Any = SimpleNamespace(app=joining)
    config = _config(service)
    assert config.http is JoiningProtocol
    assert config.timeout_keep_alive > 60  # what proxies commonly keep theirs
