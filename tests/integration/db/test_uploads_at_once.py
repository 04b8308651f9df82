"""An upload that is deleted just as a job that needs it is written: one of the two waits, and sees the other."""

import asyncio

import pytest
from tests.support.rows import Pair, new_job
from tests.support.stack import until

from comfy_api_service.db import uploads
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.insertion import InputsGone, Outcome, Written, insert
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_upload_id
from comfy_api_service.domain.submission import NewJob
from comfy_api_service.domain.upload import JobInput, Upload


async def an_upload(db: Database) -> Upload:
    upload_id = new_upload_id()
    upload = Upload(
        upload_id, LOCAL_ACCOUNT, upload_id, "image/png", 1, 1, 1, f"uploads/x/{upload_id}", 1.0, 2.0
    )
    return await db.write(lambda tx: uploads.add(tx, upload))


def needing(upload: Upload, account: str = LOCAL_ACCOUNT) -> NewJob:

    return new_job(account=account)._replace(inputs=(JobInput("1", "image", upload.id),))


async def write_held(db: Database, job: NewJob, written: asyncio.Event, go: asyncio.Event) -> Outcome:
    async def work(tx: Tx) -> Outcome:
        (outcome,) = await insert(tx, [job], queue_limit=10**9)
        written.set()
        await go.wait()
        return outcome

    return await db.write(work)


async def somebody_waits(db: Database) -> None:
    """Until a transaction waits for what another one has locked."""

    async def waiting() -> bool:
        row = await db.read(lambda tx: tx.one("SELECT count(*) AS n FROM pg_locks WHERE NOT granted"))
        return row is not None and row["n"] > 0

    await until(waiting)


@pytest.mark.parametrize("by_age", [False, True], ids=["by its owner", "by its age"])
async def test_who_deletes_waits_for_the_job_and_sees_it(both: Pair, by_age: bool) -> None:
    one, other = both
    upload = await an_upload(one)
    written, go = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(write_held(one, needing(upload), written, go))
    await written.wait()

    async def delete(tx: Tx) -> object:
        if by_age:
            return await uploads.take_out_expired(tx, 10.0, limit=10)
        return await uploads.take_out(tx, LOCAL_ACCOUNT, upload.id)

    deleting = asyncio.create_task(other.write(delete))
    await somebody_waits(one)
    go.set()
    assert isinstance(await writing, Written)
    assert not await deleting
    assert await one.read(lambda tx: uploads.get(tx, LOCAL_ACCOUNT, upload.id)) is not None


async def test_who_submits_waits_for_the_deletion_and_is_told(both: Pair) -> None:
    one, other = both
    upload = await an_upload(one)
    deleted, go = asyncio.Event(), asyncio.Event()

    async def delete(tx: Tx) -> None:
        await uploads.take_out(tx, LOCAL_ACCOUNT, upload.id)
        deleted.set()
        await go.wait()

    deleting = asyncio.create_task(other.write(delete))
    await deleted.wait()
    writing = asyncio.create_task(one.write(lambda tx: insert(tx, [needing(upload)], queue_limit=10**9)))
    await somebody_waits(one)
    go.set()
    await deleting
    assert await writing == [InputsGone((upload.id,))]


async def test_a_job_without_its_upload_is_refused_and_those_beside_it_are_written(db: Database) -> None:
    upload = await an_upload(db)
    await db.write(lambda tx: uploads.take_out(tx, LOCAL_ACCOUNT, upload.id))
    there = await an_upload(db)
    outcomes = await db.write(
        lambda tx: insert(tx, [needing(upload), needing(there), new_job()], queue_limit=10**9)
    )
    assert [type(one) for one in outcomes] == [InputsGone, Written, Written]
    row = await db.read(lambda tx: tx.one("SELECT count(*) AS n FROM job_uploads"))
    assert row is not None
    assert row["n"] == 1
