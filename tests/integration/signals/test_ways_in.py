"""The ways to a server: ports, sockets, passwords, TLS, sentinels; and what is refused on the way."""

import contextlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
import trustme
from tests.support.bus import JOB, bus, event, heard, progress
from tests.support.proxy import passing_on
from tests.support.sentinels import sentinel
from tests.support.stack import until
from tests.support.valkey import Valkey, free_port, valkey

SECRET = "canary/@:#"
QUOTED = "canary%2F%40%3A%23"


@contextmanager
def on_a_port(*options: str) -> Iterator[Valkey]:
    with valkey(port=free_port(), options=options) as server:
        yield server


async def crosses(url: str) -> None:
    """An event goes from one end to the other, and what is kept can be asked for."""
    async with bus(url) as here, bus(url) as there:
        with there.signals.listen_job(JOB, previews=False) as mailbox:
            here.signals.publish(event(2))
            assert await heard(mailbox) == event(2)
        assert await here.signals.latest([JOB]) == {}
        assert here.figure("comfyui_redis_fallbacks_total", use="read") == 0


async def is_refused(url: str, fault: str) -> None:
    """It does not connect, and says why, without a secret."""
    told = {"event": "redis_away", "fault": fault, "log_level": "warning"}
    with structlog.testing.capture_logs() as logs:
        async with bus(url, connected=False) as one:
            await until(lambda: told in logs)
            assert not one.signals.connected
    assert "canary" not in str(logs)


# --- ports, sockets, users -------------------------------------------------------------------------------------


async def test_a_port() -> None:
    with on_a_port() as server:
        await crosses(f"redis://127.0.0.1:{server.port}")
        await crosses(f"redis://localhost:{server.port}/3")


async def test_a_password() -> None:
    with on_a_port("--requirepass", SECRET) as server:
        at = f"127.0.0.1:{server.port}"
        await crosses(f"redis://:{QUOTED}@{at}/1")
        await is_refused(f"redis://{at}", "AuthenticationError")
        await is_refused(f"redis://:canary@{at}", "AuthenticationError")
        await is_refused(f"redis://canary:{QUOTED}@{at}", "AuthenticationError")


async def test_nobody_listens() -> None:
    await is_refused(f"redis://127.0.0.1:{free_port()}", "ConnectionError")
    await is_refused("redis://no-such-host.invalid", "ConnectionError")
    await is_refused("unix:///no/such/socket", "ConnectionError")


async def test_a_database_that_there_is_not(shared_valkey: Valkey) -> None:
    await is_refused(f"{shared_valkey.url}?db=9999", "ConnectionError")


async def test_a_user_with_the_rights_that_are_documented(own_valkey: Valkey) -> None:
    rights = "~cui:* &cui:* +@connection +@read +@write +@pubsub +@scripting +info"
    own_valkey.command("ACL", "SETUSER", "api", "on", f">{SECRET}", *rights.split())
    await crosses(own_valkey.url.replace("unix://", f"unix://api:{QUOTED}@"))


async def test_a_user_who_may_not_subscribe_is_not_connected(own_valkey: Valkey) -> None:
    own_valkey.command("ACL", "SETUSER", "api", "on", ">pw", "~cui:*", "resetchannels", "+@all")
    told = {"event": "redis_deaf", "fault": "NoPermissionError", "log_level": "warning"}
    with structlog.testing.capture_logs() as logs:
        async with bus(own_valkey.url.replace("unix://", "unix://api:pw@"), connected=False) as one:
            await until(lambda: one.link.up and told in logs)
            assert not one.signals.connected
            one.signals.publish(event(2))
            name = "comfyui_redis_requests_total"
            await until(lambda: one.figure(name, use="publish", status="refused") > 0)
            assert one.link.up


async def test_a_server_that_became_a_replica_is_left_for_its_successor() -> None:
    with valkey() as first, valkey() as second:
        target = first
        async with passing_on(lambda: target) as port, bus(f"redis://127.0.0.1:{port}") as one:
            first.command("REPLICAOF", "127.0.0.1", free_port())
            one.signals.publish(progress(40))
            name = "comfyui_redis_requests_total"
            await until(lambda: one.figure(name, use="publish", status="failed") > 0)
            target = second

            def kept() -> bool:
                one.signals.publish(progress(50))
                return bool(second.kept())

            await until(kept)


# --- TLS -------------------------------------------------------------------------------------------------------


async def test_tls_with_an_authority_of_ones_own(shared_valkey: Valkey, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with passing_on(lambda: shared_valkey, tls=context) as port:
        await crosses(f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem")
        await crosses(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none")
        for refused in (
            f"rediss://localhost:{port}",
            f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/stranger.pem",
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem",
        ):
            await is_refused(refused, "ConnectionError")


async def test_tls_with_a_certificate_of_the_client(shared_valkey: Valkey, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine = authority.issue_cert("api@example.com")
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with passing_on(lambda: shared_valkey, tls=context) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem"
        await crosses(f"{url}&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem")
        await is_refused(url, "ConnectionError")


# --- sentinels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [None, "canary"])
async def test_sentinels_name_the_server(tmp_path: Path, password: str | None) -> None:
    with on_a_port() as master, sentinel(tmp_path, master, password=password) as port:
        login = f"?sentinel_password={password}" if password else ""
        await crosses(f"redis+sentinel://127.0.0.1:{port}/main{login}")
        await crosses(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/main/2{login}")
        await is_refused(f"redis+sentinel://127.0.0.1:{port}/other{login}", "MasterNotFoundError")


def replication(server: Valkey) -> dict[str, Any]:
    """What the server says of it; nothing while it closes its connections to become another."""
    with contextlib.suppress(redis.RedisError):
        return dict(server.command("INFO", "replication"))
    return {}


async def test_after_a_failover_the_new_server_is_found(tmp_path: Path) -> None:
    with (
        on_a_port() as master,
        on_a_port("--replicaof", f"127.0.0.1 {master.port}") as replica,
        sentinel(tmp_path, master) as port,
    ):
        await until(lambda: replication(replica).get("master_link_status") == "up")
        url = f"redis+sentinel://127.0.0.1:{port}/main"
        async with bus(url) as here, bus(url) as there:
            master.kill()
            await here.away()
            await until(lambda: replication(replica).get("role") == "master")
            await here.connected()
            await there.connected()
            with there.signals.listen_job(JOB, previews=False) as mailbox:
                here.signals.publish(event(2))
                assert await heard(mailbox) == event(2)
