"""Jobs, backends and claims straight in the database, for tests of the queries."""

import asyncio

from comfy_api_service.db import accounts, backends, claims, counters, lanes, workers
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.claims import Busy, Claimant, Claimed
from comfy_api_service.db.insertion import insert
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.db.requirements import ensure_requirements, store_inventory
from comfy_api_service.db.submissions import Submissions
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.graph import ModelRef, Requirement
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_job_id, new_prompt_id
from comfy_api_service.domain.inventory import Inventory, NodeClass
from comfy_api_service.domain.submission import JobOptions, NewJob

Pair = tuple[PostgresDatabase, PostgresDatabase]
"""Two engines on one database."""


def need(model: str = "one.safetensors") -> Requirement:
    return Requirement(
        id=f"need-{model}",
        nodes=("CheckpointLoaderSimple",),
        models=(ModelRef("checkpoints", model),),
        primary=f"checkpoints/{model}",
    )


def new_job(
    *,
    account: str = LOCAL_ACCOUNT,
    model: str = "one.safetensors",
    at: float = 1_000.0,
    cost: float = 1.0,
    key: str | None = None,
    fingerprint: str = "print",
    options: JobOptions | None = None,
) -> NewJob:
    return NewJob(
        id=new_job_id(),
        account_id=account,
        requirement=need(model),
        graph={},
        params={"seed": 1},
        options=options or JobOptions(),
        images=1,
        cost=cost,
        timing_key="kind",
        queued_at=at,
        fingerprint=fingerprint,
        idempotency_key=key,
    )


async def door(db: Database, *, far: bool) -> Submissions:
    """Where jobs enter, with what `new_job` needs known already; `far`: from the queue's limit."""
    submissions = Submissions(db, queue_limit=10_000, far_from_limit=lambda: far)
    await db.write(lambda tx: ensure_requirements(tx, {need().id: need()}, 0.0))
    submissions._known_needs.add(need().id)
    return submissions


async def put(db: Database, *jobs: NewJob) -> list[str]:
    await db.write(lambda tx: insert(tx, jobs, queue_limit=10**9))
    return [job.id for job in jobs]


def inventory_of_checkpoints(*models: str) -> Inventory:
    return Inventory(
        classes={"CheckpointLoaderSimple": NodeClass("CheckpointLoaderSimple", {}, ("MODEL",), False)},
        models={"checkpoints": models},
    )


async def add_backend(db: Database, *models: str, backend_id: str = "bck_1") -> Claimant:
    """A backend that has these checkpoints, and who claims for it."""
    return await add_stocked(db, inventory_of_checkpoints(*models or ("one.safetensors",)), backend_id)


async def add_stocked(db: Database, inventory: Inventory, backend_id: str = "bck_1") -> Claimant:
    """A backend that has all this."""

    async def write(tx: Tx) -> None:
        await workers.register(
            tx, f"wrk-{backend_id}", node_id="node", scope=[backend_id], now=0.0, alone=False
        )
        await backends.enroll(
            tx, {backend_id: f"http://{backend_id}"}, node_id="node", now=0.0, names=[backend_id]
        )
        await backends.take(tx, backend_id, f"wrk-{backend_id}")
        await _comes(tx, backend_id, inventory)

    await db.write(write)
    return Claimant(backend_id, f"wrk-{backend_id}", "client", inventory.hash)


async def _comes(tx: Tx, backend_id: str, inventory: Inventory) -> None:
    await store_inventory(tx, inventory, 0.0)
    await lanes.admit(tx, backend_id, inventory.hash)
    await backends.describe(
        tx,
        backend_id,
        worker_id=f"wrk-{backend_id}",
        state=BackendState.ONLINE,
        now=0.0,
        inventory_hash=inventory.hash,
    )


async def comes_with(db: Database, backend_id: str, *models: str) -> None:
    """A backend that is known is online, with these checkpoints."""
    await db.write(lambda tx: _comes(tx, backend_id, inventory_of_checkpoints(*models)))


async def claim(db: Database, claimant: Claimant, now: float = 1_001.0) -> Claimed | None:
    claimed = await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=now)
    assert not isinstance(claimed, Busy)
    return claimed


async def claim_all(db: Database, claimant: Claimant) -> list[Claimed]:
    """Everything that is ready for a backend, beside others who claim."""
    taken: list[Claimed] = []
    while True:
        found = await claims.next_job(db, claimant, prompt_id=new_prompt_id(), now=1.0)
        if found is None:
            return taken
        if isinstance(found, Busy):
            await asyncio.sleep(0.005)
        else:
            taken.append(found)


async def add_accounts(db: Database, *names: str) -> None:
    async def write(tx: Tx) -> None:
        for name in names:
            await accounts.ensure(tx, Account(name, name, "free"), 0.0)

    await db.write(write)


async def drift(db: Database) -> list[counters.Drift]:
    return await db.read(counters.drift)


async def until_somebody_waits(db: PostgresDatabase) -> None:
    waiting = """SELECT 1 AS found FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(10):
        while await db.read(lambda tx: tx.one(waiting)) is None:  # noqa: ASYNC110 - another process knows
            await asyncio.sleep(0.005)
