"""The doctor's questions to a Redis that is as it should be, and to others."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from tests.support.proxy import passing_on
from tests.support.sentinels import sentinel
from tests.support.valkey import Valkey, free_port, valkey

from comfy_api_service.cli.doctor import redis
from comfy_api_service.cli.doctor.finding import Finding, Level
from comfy_api_service.redis_link.address import RedisAddress, parse
from comfy_api_service.redis_link.probe import Probe, Reach, probe


async def finding(url: str, *words: str) -> Finding:
    """A fault that says these words, with a remedy and without the secret."""
    found = await redis.examine(url)
    assert found.status is Level.FAULT, found
    assert all(word in found.message for word in words), found
    assert found.remedy
    assert "canary" not in str(found)
    return found


async def test_a_server_as_it_should_be(shared_valkey: Valkey) -> None:
    found = await redis.examine(f"{shared_valkey.url}?db=2")
    assert (found.status, found.message[:8]) == (Level.OK, "Valkey 9")
    assert shared_valkey.kept() == set()


async def test_nothing_listens() -> None:
    await finding(f"redis://127.0.0.1:{free_port()}", "nothing listens")
    assert "socket" in (await finding("unix:///no/such/socket", "nothing listens")).remedy


async def test_an_unknown_host() -> None:
    await finding("redis://:canary@no-such-host.invalid", "host name is not known")


async def test_a_server_that_hangs(own_valkey: Valkey) -> None:
    own_valkey.pause()
    found = await probe(parse(own_valkey.url), seconds=0.3)
    assert found.reach is Reach.SILENT
    assert "no answer" in redis.judge(own_valkey.url, parse(own_valkey.url), found).message


async def test_passwords() -> None:
    with valkey(port=free_port(), options=["--requirepass", "right"]) as server:
        at = f"127.0.0.1:{server.port}"
        await finding(f"redis://{at}", "asks for a password")
        await finding(f"redis://:canary@{at}", "refuses")
        await finding(f"redis://nobody:canary@{at}", "refuses")
        assert (await redis.examine(f"redis://:right@{at}")).status is Level.OK
    with valkey(port=free_port()) as server:
        found = await finding(f"redis://:canary@127.0.0.1:{server.port}", "refuses")
        assert "leave it out" in found.remedy


@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ("~cui:* resetchannels +@all", ["PUBLISH", "SUBSCRIBE"]),
        ("~other:* &cui:* +@all", ["keys cui:*"]),
        ("~cui:* &cui:* +@all -@scripting", ["EVAL"]),
        ("~cui:* &cui:* +@all -subscribe", ["SUBSCRIBE"]),
    ],
)
async def test_rights_that_are_missing(own_valkey: Valkey, rights: str, lacks: list[str]) -> None:
    own_valkey.command("ACL", "SETUSER", "api", "on", ">canary", *rights.split())
    found = await finding(own_valkey.url.replace("unix://", "unix://api:canary@"), *lacks)
    assert "ACL SETUSER" in found.remedy


async def test_the_rights_that_the_remedy_gives_are_enough(own_valkey: Valkey) -> None:
    own_valkey.command("ACL", "SETUSER", "api", "on", ">canary", *redis.RIGHTS.split())
    url = own_valkey.url.replace("unix://", "unix://api:canary@")
    assert (await redis.examine(url)).status is Level.OK
    own_valkey.command("ACL", "SETUSER", "api", "-info")
    assert "may not ask for" in (await redis.examine(url)).message


async def test_a_replica(own_valkey: Valkey) -> None:
    own_valkey.command("REPLICAOF", "127.0.0.1", free_port())
    await finding(own_valkey.url, "replica")


async def test_a_node_of_a_cluster() -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port", f"{free_port()}"]
    with valkey(port=free_port(), options=options) as server:
        await finding(f"redis://127.0.0.1:{server.port}", "cluster")


async def test_a_server_without_memory(own_valkey: Valkey) -> None:
    own_valkey.command("CONFIG", "SET", "maxmemory", "1")
    await finding(own_valkey.url, "memory is full")


async def test_a_database_that_there_is_not(shared_valkey: Valkey) -> None:
    assert "database exists" in (await finding(f"{shared_valkey.url}?db=9999", "fails")).remedy


@asynccontextmanager
async def talking(words: bytes) -> AsyncIterator[int]:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_something_else_on_the_port(words: bytes) -> None:
    async with talking(words) as port:
        await finding(f"redis://127.0.0.1:{port}", "does not speak the protocol")


async def test_tls_where_it_is_not_and_none_where_it_is(shared_valkey: Valkey, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with passing_on(lambda: shared_valkey, tls=context) as port:
        await finding(f"redis://localhost:{port}", "the connection")
        await finding(f"rediss://localhost:{port}", "certificate verify failed")
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem"
        assert (await redis.examine(url)).status is Level.OK
    with valkey(port=free_port()) as server:
        url = f"rediss://127.0.0.1:{server.port}"
        found = await probe(parse(url), seconds=0.3)  # it waits for the end of a line
        assert found.reach is Reach.SILENT
        assert "rediss://" in redis.judge(url, parse(url), found).remedy


async def test_sentinels(tmp_path: Path) -> None:
    with valkey(port=free_port()) as master, sentinel(tmp_path, master) as port:
        assert (await redis.examine(f"redis+sentinel://127.0.0.1:{port}/main")).status is Level.OK
        await finding(f"redis+sentinel://127.0.0.1:{port}/other", "no sentinel", "other")
        await finding(f"redis+sentinel://127.0.0.1:{free_port()}/main", "no sentinel")


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("Redis", "5.0.14", Level.FAULT),
        ("Redis", "6.0.20", Level.FAULT),
        ("Redis", "6.2.0", Level.OK),
        ("Redis", "10.1.0", Level.OK),
        ("Redis", None, Level.OK),
        ("Valkey", "7.2.5", Level.OK),
    ],
)
def test_versions(name: str, version: str | None, level: Level) -> None:
    found = redis.judge("redis://host", RedisAddress(), Probe(Reach.ANSWERS, name=name, version=version))
    assert found.status is level
