"""The doctor's and a start's words on a PostgreSQL that cannot be used; never a password."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.support.postgres import PostgresServer, blocking
from tests.support.schema import copied

from comfy_api_service.bootstrap.parts import migrate
from comfy_api_service.bootstrap.service import service
from comfy_api_service.cli.doctor import postgres as doctor
from comfy_api_service.cli.doctor.accounts import unused
from comfy_api_service.cli.doctor.checks import key
from comfy_api_service.cli.doctor.finding import Finding, Level
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.starting import start_faults
from comfy_api_service.db.migrate import HEAD
from comfy_api_service.settings import Settings

SECRET = "hunter2"


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with copied(postgres) as address:
        yield address


def asked(url: str, pool_size: int = 10) -> Finding:
    return blocking(lambda: doctor.database(url, pool_size))


def test_a_database_as_it_should_be(url: str) -> None:
    found = asked(url)
    assert found.status is Level.OK
    assert "PostgreSQL 18" in found.message
    assert HEAD in found.message


def test_an_empty_database(postgres: PostgresServer) -> None:
    found = asked(postgres.url("template1"))
    assert found.status is Level.OK
    assert "first start" in found.message


def test_accounts_that_nobody_is_asked_for(url: str) -> None:
    settings = Settings(_env_file=None, database_url=url)
    assert blocking(lambda: unused(settings)) == []
    row = "'acc_1', 'ada', 'ada', 'free', 'user', 1"
    columns = "id, name, username, tier, role, created_at"
    blocking(lambda: _execute(url, f"INSERT INTO accounts ({columns}) VALUES ({row})"))
    (found,) = blocking(lambda: unused(settings))
    assert "1 account and its keys are not used" in found.message


def test_a_key_that_other_machines_do_not_have(url: str) -> None:
    found = key(Settings(_env_file=None, database_url=url))
    assert found.status is Level.WARNING
    assert "SECRET_KEY" in found.remedy
    given = key(Settings(_env_file=None, database_url=url, secret_key="a" * 16 + "b" * 17))
    assert given.status is Level.OK
    assert "b" * 17 not in given.message


def test_a_newer_schema(url: str) -> None:
    blocking(lambda: _execute(url, "UPDATE alembic_version SET version_num = '9999'"))
    found = asked(url)
    assert found.status is Level.FAULT
    assert "9999" in found.message
    assert "Update this program" in found.remedy


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def test_a_pool_larger_than_the_server_allows(url: str) -> None:
    found = asked(url, 500)
    assert found.status is Level.WARNING
    assert "DATABASE_POOL_SIZE" in found.remedy


def test_a_user_without_rights(postgres: PostgresServer, url: str) -> None:
    postgres.execute("CREATE ROLE guest LOGIN")
    try:
        found = asked(postgres.url("template1", user="guest"))
        assert found.status is Level.FAULT
        assert "may not make tables" in found.message
        found = asked(url.replace("postgres@", "guest@"))
        assert found.status is Level.FAULT
        assert "may not" in found.message
    finally:
        postgres.execute("DROP ROLE guest")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/test_", "/absent_"), "no database of that name"),
        (("postgres@", f"nobody_known:{SECRET}@"), "refuses the user or the password"),
        (("postgres@", f"careful:wrong_{SECRET}@"), "refuses the user or the password"),
        (("127.0.0.1", "no-such-host.invalid"), "host name"),
        (("PORT", "1"), "connection refused"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(
    postgres: PostgresServer, url: str, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    with postgres.careful_user("careful", SECRET):
        old, new = change
        address = url.replace(str(postgres.port) if old == "PORT" else old, new)
        found = asked(address)
        assert found.status is Level.FAULT
        assert words in found.message
        assert found.remedy
        settings = Settings(_env_file=None, data_dir=tmp_path, database_url=address)
        for begin in (migrate(settings), _serve(settings)):
            with pytest.raises(Fault) as raised, start_faults(settings):
                asyncio.run(begin)
            assert words in raised.value.message
            told = f"{found.message} {found.remedy} {raised.value.message} {raised.value.remedy}"
            assert SECRET not in told
            assert "127.0.0.1" not in told


def test_the_right_password_lets_in(postgres: PostgresServer, url: str) -> None:
    with postgres.careful_user("careful", SECRET):
        found = asked(url.replace("postgres@", f"careful:{SECRET}@"))
        assert "refuses" not in found.message


async def _serve(settings: Settings) -> None:
    async with service(settings):
        pass
