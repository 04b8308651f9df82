"""What a server says of itself and lets its user do, asked once. Changes nothing that stays."""

import asyncio
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError, InvalidResponse, ReadOnlyError

from comfy_api_service.redis_link.address import RedisAddress
from comfy_api_service.redis_link.client import (
    FAULTS,
    Command,
    Refusal,
    Reply,
    client_of,
    close,
    connect,
    discard,
    exchange,
)

SECONDS: Final = 3.0


class Reach(StrEnum):
    ANSWERS = "answers"
    SILENT = "silent"
    """No answer in time."""
    LOGIN = "login"
    """The password is missing, wrong, or one that nobody asked for."""
    NO_SERVICE = "no service"
    """No sentinel answers that knows the service."""
    OTHER = "other"
    """Something answers that does not speak the protocol."""
    FAILS = "fails"
    """The system's own errors, which `fault` tells."""


@dataclass(frozen=True, slots=True)
class Probe:
    """`lacking`: what the user may not do. `fault`: for the reason of a connection that failed; quotes hosts."""

    reach: Reach
    fault: Exception | None = None
    name: str = "Redis"
    version: str | None = None
    cluster: bool = False
    replica: bool = False
    lacking: tuple[str, ...] = ()
    full: bool = False
    """No memory for anything new."""


async def probe(address: RedisAddress, *, seconds: float = SECONDS) -> Probe:
    client = client_of(address)
    try:
        async with asyncio.timeout(seconds):
            return await _ask(client, address)
    except TimeoutError as fault:
        return Probe(Reach.SILENT, fault)
    except AuthenticationError as fault:
        return Probe(Reach.LOGIN, fault)
    except MasterNotFoundError as fault:
        return Probe(Reach.NO_SERVICE, fault)
    except InvalidResponse as fault:
        return Probe(Reach.OTHER, fault)
    except FAULTS as fault:
        return Probe(Reach.FAILS, fault)
    finally:
        await close(client)


async def _ask(client: "Redis", address: RedisAddress) -> Probe:
    connection = await connect(client)
    try:
        (info,) = await exchange(connection, [("INFO",)])
        about = _lines(info)
        tried = _trials(address.db)
        lacking, full, replica = [], False, about.get("role") == "slave"
        for right, commands in tried.items():
            try:
                replies = await exchange(connection, commands)
            except ReadOnlyError:
                replica = True
                break
            lacking += [right] if Refusal("NOPERM") in replies else []
            full = full or Refusal("OOM") in replies
    finally:
        await discard(client, connection)
    return Probe(
        Reach.ANSWERS,
        name="Valkey" if "valkey_version" in about else "Redis",
        version=about.get("valkey_version", about.get("redis_version")),
        cluster=about.get("cluster_enabled") == "1",
        replica=replica,
        lacking=tuple(lacking),
        full=full,
    )


def _trials(db: int) -> dict[str, list[Command]]:
    """By right: commands that need it. The one that listens comes last: it changes the connection."""
    name = f"cui:{db}:doctor"
    key = f"{name}:{secrets.token_hex(8)}"
    return {
        "PUBLISH on channels cui:*": [("PUBLISH", name, "")],
        "SET, GET, GETRANGE and UNLINK on keys cui:*": [
            ("SET", key, "1", "EX", 5),
            ("GET", key),
            ("GETRANGE", key, 0, 1),
            ("UNLINK", key),
        ],
        "EVAL and EVALSHA": [("EVAL", "return redis.call('TIME')", 0)],
        "SUBSCRIBE to channels cui:*": [("SUBSCRIBE", name), ("UNSUBSCRIBE", name)],
    }


def _lines(info: Reply) -> dict[str, str]:
    """INFO as a mapping; empty if the user may not ask."""
    if not isinstance(info, bytes):
        return {}
    lines = info.decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}
