"""The client library, and nothing of it beyond this package: connections without retries of their own.

A connection that reconnects by itself would hide that messages were lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from comfy_api_service.redis_link.address import Login, RedisAddress

Command: TypeAlias = tuple[str | bytes | int, ...]
FAULTS: Final = (OSError, TimeoutError, RedisError)
"""Whatever a connection may end with."""
SENTINEL_SECONDS: Final = 0.5
"""How long one sentinel may take before the next is asked."""
_CODES: Final = {NoScriptError: "NOSCRIPT", NoPermissionError: "NOPERM", OutOfMemoryError: "OOM"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's answer to a command that it did not carry out."""

    code: str


Reply: TypeAlias = bytes | int | list[Any] | Refusal | None


def client_of(address: RedisAddress) -> "Redis":
    """A client; nothing is connected yet."""
    options: dict[str, Any] = {"socket_timeout": None, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    if address.tls is not None:
        options |= {
            "ssl": True,
            "ssl_ca_certs": address.tls.ca,
            "ssl_certfile": address.tls.certificate,
            "ssl_keyfile": address.tls.key,
            "ssl_cert_reqs": "required" if address.tls.verify else "none",
            "ssl_check_hostname": address.tls.verify,
        }
    if address.path is not None:
        options["unix_socket_path"] = address.path
    own: dict[str, Any] = {**_login(address.login), "db": address.db}
    if address.service is None:
        if address.hosts:
            options["host"], options["port"] = address.hosts[0]
        return Redis(**options, **own)
    patience = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    asked = {**options, **patience, **_login(address.sentinel_login)}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=asked, **options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.service, **own)  # type: ignore[no-any-return]


def _login(login: Login) -> dict[str, str | None]:
    return {"username": login.username, "password": login.password}


async def close(client: "Redis") -> None:
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


async def connect(client: "Redis") -> AbstractConnection:
    """A connection that answers; give it back by `discard`. Raises one of `FAULTS`."""
    connection: AbstractConnection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await exchange(connection, [("PING",)])
    except BaseException:
        await discard(client, connection)
        raise
    return connection


async def discard(client: "Redis", connection: AbstractConnection) -> None:
    await connection.disconnect(nowait=True)
    await client.connection_pool.release(connection)


async def exchange(connection: AbstractConnection, commands: Sequence[Command]) -> list[Reply]:
    """Send commands in one go and read their replies. After one of `FAULTS` the connection is of no use.

    That the server became a replica is a fault, not a refusal: another one is the right one now.
    """
    pack: Callable[[Command], bytes] = pack_command  # type: ignore[assignment]  # its stub knows no long tuples
    packed = b"".join(map(pack, commands))  # a tenth of what the library's own packing takes
    await connection.send_packed_command([packed], check_health=False)
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ReadOnlyError:
            raise
        except ResponseError as refusal:
            replies.append(Refusal(_CODES.get(type(refusal), "ERR")))
    return replies
