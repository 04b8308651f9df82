"""Backup and restore as commands: the same again, nothing half, nothing overwritten, nothing believed."""

import asyncio
import hashlib
import io
import json
import os
import sqlite3
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from tests.support.checker import opened
from tests.support.postgres import PostgresServer, blocking
from tests.support.rows import new_job, put
from tests.support.s3 import S3Server, s3_settings
from tests.support.schema import bound, url_of
from tests.support.tools import postgres_tools

from comfy_api_service.bootstrap.parts import parts
from comfy_api_service.bootstrap.service import service
from comfy_api_service.cli.main import main
from comfy_api_service.db import sqlite_backup
from comfy_api_service.db.base import Tx
from comfy_api_service.db.migrate import HEAD, MIGRATIONS
from comfy_api_service.db.tables import metadata
from comfy_api_service.domain.clock import SystemClock
from comfy_api_service.settings import load
from comfy_api_service.storage.archive import ArchiveWriter

Cli = Callable[..., str]
PICTURES = {f"jobs/job_{name}/1/image_0.png": name.encode() * 700 for name in ("a", "b", "c")}
UPLOAD = "uploads/acc_local/upl_1"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """`comfy-api …` in `tmp_path`: what it says, or, for another exit code, what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PATH", f"{postgres_tools()}:{os.environ['PATH']}")

    def run(*arguments: str, code: int = 0) -> str:
        url = url_of(tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            if url is not None:
                patch.setenv("DATABASE_URL", url)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        said = capfd.readouterr()
        assert (ended.value.code or 0) == code, (arguments, said)
        return said.err if code else said.out.strip()

    return run


def fill(folder: Path, *, pictures: dict[str, bytes] | None = None) -> None:
    """A service's data: a waiting job, done ones with results, an upload."""

    async def write() -> None:
        settings = load(data_dir=folder / "data", database_url=url_of(folder))
        async with parts(settings, SystemClock(), role="test") as made:
            await put(made.db, new_job())

            async def rows(tx: Tx) -> None:
                for key, body in (pictures or PICTURES).items():
                    job = key.split("/")[1]
                    await tx.run(
                        """INSERT INTO jobs (id, account_id, state, requirement_id, timing_key, params, labels, output,
                             fingerprint, queued_at)
                           VALUES (:id, 'acc_local', 'succeeded', 'r', 't', '{}', '{}', '{}', 'f', 1)""",
                        {"id": job},
                    )
                    await tx.run(
                        """INSERT INTO artifacts (job_id, idx, attempt, node_id, kind, media_type, bytes, sha256, key,
                             meta)
                           VALUES (:job, 0, 1, '9', 'image', 'image/png', :bytes, :sha256, :key, '{}')""",
                        {
                            "job": job,
                            "bytes": len(body),
                            "sha256": hashlib.sha256(body).hexdigest(),
                            "key": key,
                        },
                    )
                await tx.run(
                    """INSERT INTO uploads (id, account_id, sha256, media_type, bytes, key, created_at, expires_at)
                       VALUES ('upl_1', 'acc_local', :sha256, 'image/png', 3, :key, 1, 9e12)""",
                    {"sha256": hashlib.sha256(b"abc").hexdigest(), "key": UPLOAD},
                )

            await made.db.write(rows)
            for key, body in {**(pictures or PICTURES), UPLOAD: b"abc"}.items():
                await made.storage.put(key, in_two(body), media_type="image/png")

    asyncio.run(write())


async def in_two(body: bytes) -> AsyncIterator[bytes]:
    yield body[:2]
    yield body[2:]


def content(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with closing(opened(folder / "data" if url_of(folder) is None else folder)) as db:
        return {
            table.name: sorted(map(tuple, db.execute(f"SELECT * FROM {table.name}")), key=repr)
            for table in metadata.sorted_tables
        }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(folder: Path) -> dict[str, bytes]:
    """The service's files, but for the database and its locks."""
    found = files(folder / "data")
    return {name: found[name] for name in found if name.startswith("artifacts/") or name == "secret.key"}


@contextmanager
def elsewhere(folder: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """The same folder on a new machine: nothing in it, and an empty database."""
    (folder / "data").rename(folder / "lost")
    if url_of(folder) is None:
        yield
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.execute("CREATE DATABASE new_machine")
    try:
        with bound(folder, server.url("new_machine")):
            yield
    finally:
        server.execute("DROP DATABASE new_machine WITH (FORCE)")


def test_all_is_there_again_on_a_new_machine(
    dialect: str, tmp_path: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    fill(tmp_path)
    before, stored = content(tmp_path), kept(tmp_path)
    assert {f"artifacts/{key}" for key in PICTURES} < set(stored)
    archive = cli("backup", "here.tar")
    assert Path(archive).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "here.tar"], "something was left"
    with tarfile.open(archive) as tar:  # any tar reads it
        names = tar.getnames()
        assert {names[0], names[-1]} == {
            f"database.{'sqlite3' if dialect == 'sqlite' else 'dump'}",
            "manifest.json",
        }
    with elsewhere(tmp_path, request):
        assert "4 jobs (1 open), 0 workflows, 4 results" in cli("restore", "--check", archive)
        assert not (tmp_path / "data").exists()
        cli("restore", archive)
        assert content(tmp_path) == before
        assert kept(tmp_path) == stored
        assert not list((tmp_path / "data").glob(".comfy-api-backup-*"))


def test_what_is_there_is_kept_from_a_restore_and_moved_aside_by_force(
    dialect: str, tmp_path: Path, cli: Cli
) -> None:
    fill(tmp_path, pictures={"jobs/job_a/1/image_0.png": b"then"})
    archive = cli("backup", "then.tar")
    then, key = content(tmp_path), (tmp_path / "data" / "secret.key").read_bytes()
    (tmp_path / "data" / "artifacts" / "jobs" / "job_a" / "1" / "image_0.png").write_bytes(b"later")
    (tmp_path / "data" / "secret.key").write_bytes(b"another key, made later: 32 bytes")
    before = files(tmp_path / "data")
    assert "already" in cli("restore", archive, code=1)
    assert {**files(tmp_path / "data"), "worker.lock": b""} == {**before, "worker.lock": b""}
    cli("restore", archive, "--force")
    assert content(tmp_path) == then
    assert (tmp_path / "data" / "secret.key").read_bytes() == key
    [aside] = (tmp_path / "data").glob("replaced-*")
    assert (aside / "secret.key").read_bytes() == b"another key, made later: 32 bytes"
    assert files(aside)["artifacts/jobs/job_a/1/image_0.png"] == b"later"
    if dialect == "sqlite":
        with closing(sqlite3.connect(aside / "comfy-api.sqlite3")) as old:
            assert old.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    else:
        assert jobs_aside(url_of(tmp_path) or "") == 2
        cli("backup", "after.tar")  # what is aside is not taken along
        cli("restore", "after.tar", "--force")


def jobs_aside(url: str) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(url)
        try:
            [schema] = await connection.fetch(
                "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'replaced%'"
            )
            return int(await connection.fetchval(f"SELECT count(*) FROM {schema['nspname']}.jobs"))
        finally:
            await connection.close()

    return blocking(count)


def test_the_copy_is_of_one_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    source, to = tmp_path / "a.sqlite3", tmp_path / "b.sqlite3"
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n INTEGER, body BLOB)")
        for number in range(300):
            writer.execute("INSERT INTO t VALUES (?, randomblob(4000))", (number,))
        steps = 0

        def write(done: int, whole: int) -> None:
            nonlocal steps
            steps += 1
            writer.execute("UPDATE t SET n = n + 1000, body = randomblob(4000)")
            assert 0 <= done <= whole

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_backup, "PAGES_A_STEP", 50)
            sqlite_backup.copy(source, to, write)
    assert steps > 3
    with closing(sqlite3.connect(to)) as copy:
        assert copy.execute("SELECT min(n), max(n), count(*) FROM t").fetchone() == (0, 299, 300)
    assert sorted(path.name for path in tmp_path.glob("b*")) == ["b.sqlite3"]


def test_a_damaged_archive_changes_nothing(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path)
    whole = Path(cli("backup", "whole.tar")).read_bytes()
    (tmp_path / "data").rename(tmp_path / "lost")
    with tarfile.open(tmp_path / "whole.tar") as tar:
        at = {info.name: info.offset_data for info in tar}
    bad = tmp_path / "bad.tar"
    flipped = ["database.sqlite3", "secret.key", "objects.tsv", "results/jobs/job_b/1/image_0.png"]
    damages = {name: whole[: at[name]] + b"?" + whole[at[name] + 1 :] for name in flipped}
    damages |= {
        f"cut at {end}": whole[:end]
        for end in (0, 300, at["secret.key"], at["manifest.json"], len(whole) // 2)
    }
    damages["a later version"] = rewritten(
        whole, "manifest.json", lambda text: text.replace(b'"format": 1', b'"format": 2')
    )
    damages["a later schema"] = rewritten(
        whole, "manifest.json", lambda text: text.replace(HEAD.encode(), b"9999")
    )
    damages["one result less"] = rewritten(whole, "results/jobs/job_b/1/image_0.png", lambda _: None)
    for name in ("../../escaped", "/escaped", "results/../../escaped", "escaped", "secret.key"):
        damages[f"more: {name}"] = added(whole, tarfile.TarInfo(name))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        link = tarfile.TarInfo("results/jobs/job_c/1/image_0.png")
        link.type, link.linkname = kind, "/etc/passwd"
        damages[f"more: {kind!r}"] = added(whole, link)
    for what, body in damages.items():
        bad.write_bytes(body)
        assert "error:" in cli("restore", "bad.tar", code=1), what
        assert "error:" in cli("restore", "--check", "bad.tar", code=1), what
        left = set(files(tmp_path / "data")) if (tmp_path / "data").exists() else set()
        assert left <= {"worker.lock"}, what
        assert not (tmp_path / "escaped").exists()
        assert not (tmp_path.parent / "escaped").exists()
    assert "cannot be read" in cli("restore", "absent.tar", code=1)


def rewritten(whole: bytes, name: str, change: Callable[[bytes], bytes | None]) -> bytes:
    """The archive with one part changed, or without it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar, tarfile.open(fileobj=made, mode="w") as new:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            body: bytes | None = file.read()
            if info.name == name:
                assert body is not None
                body = change(body)
            if body is not None:
                info.size = len(body)
                new.addfile(info, io.BytesIO(body))
    return made.getvalue()


def part_of(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def added(whole: bytes, more: tarfile.TarInfo) -> bytes:
    """The archive with one part more, before the manifest."""
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar, tarfile.open(fileobj=made, mode="w") as new:
        for info in tar:
            if info.name == "manifest.json":
                new.addfile(more)
            new.addfile(info, tar.extractfile(info))
    return made.getvalue()


def test_results_that_the_store_lost_are_named(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path)
    first, second, third = (tmp_path / "data" / "artifacts" / key for key in PICTURES)
    first.unlink()
    second.write_bytes(b"x" * second.stat().st_size)
    with closing(sqlite3.connect(tmp_path / "data" / "comfy-api.sqlite3")) as db:
        db.execute("UPDATE jobs SET purged_at = 1 WHERE id = 'job_c'")  # deleted: its file may be gone
        db.commit()
    third.unlink()
    said = cli("backup", "some.tar", code=1)
    assert "2 results" in said
    assert all(key in said for key in list(PICTURES)[:2])
    assert list(PICTURES)[2] not in said
    cli("backup", "more.tar", "--allow-missing")
    (tmp_path / "data").rename(tmp_path / "lost")
    cli("restore", "some.tar")
    assert [name for name in kept(tmp_path) if name.startswith("artifacts/")] == [f"artifacts/{UPLOAD}"]


def test_nothing_half_stands_under_an_archives_name(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    (tmp_path / "there.tar").write_text("mine")
    assert "there already" in cli("backup", "there.tar", code=1)
    assert (tmp_path / "there.tar").read_text() == "mine"

    def full(_: ArchiveWriter) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveWriter, "end", full)
        assert "no space left" in cli("backup", "half.tar", code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "there.tar"]
    assert "no folder" in cli("backup", "absent/a.tar", code=1)
    (tmp_path / "empty").mkdir()
    assert "no database" in cli("backup", "--data-dir", "empty", "a.tar", code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty", "there.tar"]


def test_a_restore_that_broke_off_is_given_again(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    before, stored = content(tmp_path), kept(tmp_path)
    archive = cli("backup", "a.tar")
    (tmp_path / "data").rename(tmp_path / "lost")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_backup, "check", full)
        assert "No space left" in cli("restore", archive, code=1)
    assert not (tmp_path / "data" / "comfy-api.sqlite3").exists(), "a service would start on half of it"
    assert kept(tmp_path) == stored
    with monkeypatch.context() as patch:
        patch.setenv("SECRET_KEY", "5d0c7a1e94b83f26d75e0a9c41f8b3672e6d9f05")
        patch.setattr("sys.stderr", sys.stdout)
        assert "SECRET_KEY is another one" in cli("restore", archive)
    capfd.readouterr()
    assert (content(tmp_path), kept(tmp_path)) == (before, stored)
    assert "already" in cli("restore", archive, code=1)


def test_only_the_oldest_of_its_own_are_deleted(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path)
    folder = tmp_path / "kept"
    folder.mkdir()
    names = [f"comfy-api-2020010{day}T000000Z.tar" for day in range(1, 5)]
    for name in (*names, "mine.tar", "comfy-api-20200101T000000Z.tar.age"):
        (folder / name).touch()
    for name, age in ((".comfy-api-20200101T000000Z.tar.77.part", 90_000), (".mine.part", 90_000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    made = cli("backup", "kept", "--keep", "3")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [Path(made).name, *names[-2:], "mine.tar", "comfy-api-20200101T000000Z.tar.age", ".mine.part"]
    )
    cli("backup", "a.tar", "--keep", "3", code=1)


def test_a_service_that_runs_is_not_restored_over(tmp_path: Path, cli: Cli) -> None:
    fill(tmp_path)
    archive = cli("backup", "a.tar")

    async def beside() -> None:
        async with service(load(data_dir=tmp_path / "data")):
            assert "Another process" in await asyncio.to_thread(cli, "restore", archive, "--force", code=1)

    asyncio.run(beside())
    assert not list((tmp_path / "data").glob("replaced-*"))


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path, cli: Cli) -> None:
    """Backed up by a newer program before its first start, and restored by it."""
    fill(tmp_path)
    path = tmp_path / "data" / "comfy-api.sqlite3"
    path.unlink()
    migrated_to(path, "0005")
    cli("backup", "old.tar")
    (tmp_path / "data").rename(tmp_path / "lost")
    cli("restore", "old.tar")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert db.execute("SELECT count(*) FROM uploads").fetchone() == (0,)


def migrated_to(path: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def test_on_postgresql_nothing_may_be_connected_and_no_password_is_seen(
    tmp_path: Path, cli: Cli, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE DATABASE watched")
    try:
        with bound(
            tmp_path, postgres.url("watched", user="comfy:s3cret%20word").replace("comfy:", "postgres:")
        ):
            fill(tmp_path)
            tools = tmp_path / "tools"
            tools.mkdir()
            for name in ("pg_dump", "pg_restore"):
                real = next(
                    Path(folder) / name
                    for folder in os.environ["PATH"].split(":")
                    if (Path(folder) / name).exists()
                )
                (tools / name).write_text(
                    f'#!/bin/sh\necho "$@" >>{tmp_path}/seen\necho "$PGPASSWORD" >>{tmp_path}/told\nexec {real} "$@"\n'
                )
                (tools / name).chmod(0o755)
            monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
            archive = cli("backup", "a.tar")
            with connected(postgres.url("watched")):
                assert "are connected" in cli("restore", archive, "--force", code=1)
            cli("restore", archive, "--force")
            assert "s3cret" not in (tmp_path / "seen").read_text()
            assert (tmp_path / "told").read_text() == "s3cret word\n" * 2
            assert b"s3cret" not in part_of(Path(archive), "manifest.json")
            monkeypatch.setenv("PATH", "/nowhere")
            assert "pg_dump is not on PATH" in cli("backup", "b.tar", code=1)
        assert "holds a database of PostgreSQL" in cli("restore", archive, "--data-dir", "other", code=1)
    finally:
        postgres.execute("DROP DATABASE watched WITH (FORCE)")


@contextmanager
def connected(url: str) -> Iterator[None]:
    """Somebody who is connected, as the service's processes are; on a loop of its own."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(
        asyncpg.connect(url, server_settings={"application_name": "comfy-api api gpu1"})
    )
    try:
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def test_a_buckets_results_are_listed_or_taken_along(
    tmp_path: Path, cli: Cli, own_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = own_s3.bucket("first"), own_s3.bucket("second")
    for name, value in s3_settings(first).items():
        monkeypatch.setenv(name.upper(), str(value))
    fill(tmp_path)
    cli("backup", "listed.tar")
    cli("backup", "whole.tar", "--with-bucket")
    told = [json.loads(part_of(tmp_path / name, "manifest.json")) for name in ("listed.tar", "whole.tar")]
    assert [(one["objects"], one["held"]) for one in told] == [(4, 0), (4, 4)]
    (tmp_path / "data").rename(tmp_path / "lost")
    monkeypatch.setenv("S3_BUCKET", second.name)
    cli("restore", "listed.tar")
    assert own_s3.files(second) == []
    cli("restore", "whole.tar", "--force")
    assert sorted(own_s3.files(second)) == sorted(own_s3.files(first))
