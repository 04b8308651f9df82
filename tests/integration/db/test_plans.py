"""A claim, a submission and an end cost the same however many jobs there are: no statement of theirs walks over a
table that grows.

The statements are those that the real functions run; what is asked is the database's own plan for each.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from tests.support.rows import add_accounts, add_backend, new_job

from comfy_api_service.db import claims, deliveries, transitions
from comfy_api_service.db.base import Database, Params, Part, Tx
from comfy_api_service.db.endings import Ending
from comfy_api_service.db.insertion import insert
from comfy_api_service.db.statements import numbered
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_prompt_id
from comfy_api_service.domain.job import State
from comfy_api_service.domain.scheduling import MAX_LANES
from comfy_api_service.domain.submission import JobOptions
from comfy_api_service.domain.webhook import DeliveryState

ACCOUNTS = 1_000
JOBS = 6_000
GROWS = frozenset(
    {"accounts", "lanes", "lane_needs", "jobs", "job_labels", "attempts", "artifacts", "events", "outbox", "ledger",
     "usage_days", "idempotency_keys"}
)  # fmt: skip


class Recorder:
    """A transaction that notes its statements."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.dialect = tx.dialect
        self.seen: list[tuple[str, Params]] = []

    async def all(self, sql: str, params: Params | None = None) -> Any:
        self.seen.append((sql, params or {}))
        return await self._tx.all(sql, params)

    async def one(self, sql: str, params: Params | None = None) -> Any:
        self.seen.append((sql, params or {}))
        return await self._tx.one(sql, params)

    async def several(self, *queries: tuple[str, Params]) -> Any:
        self.seen += queries
        return await self._tx.several(*queries)

    async def run(self, sql: str, params: Params | None = None) -> int:
        self.seen.append((sql, params or {}))
        return await self._tx.run(sql, params)

    async def many(self, sql: str, rows: Iterable[Params]) -> None:
        await self.together((sql, list(rows)))

    async def together(self, *statements: Part) -> None:
        for sql, params in statements:
            rows: Sequence[Params] = params if isinstance(params, Sequence) else [params]
            self.seen += [(sql, row) for row in rows[:1]]
        await self._tx.together(*statements)

    async def one_together(self, first: tuple[str, Params], *others: Part) -> Any:
        row = await self.one(*first)
        await self.together(*others)
        return row

    async def lock(self, name: str) -> None:
        await self._tx.lock(name)


@pytest.fixture
async def full(db: Database) -> Database:
    """Thousands of accounts with jobs that wait, that run and that ended long ago."""
    names = [f"acc{n}" for n in range(ACCOUNTS)]
    await add_accounts(db, *names)
    jobs = [
        new_job(account=names[n % ACCOUNTS], key=f"key {n}", fingerprint=f"print {n}") for n in range(JOBS)
    ]
    for begin in range(0, JOBS, 3_000):
        await db.write(lambda tx: insert(tx, jobs[begin : begin + 3_000], queue_limit=10**9))  # noqa: B023
    ended = "UPDATE jobs SET state = 'succeeded', finished_at = 1 WHERE id <= :id"
    await db.write(lambda tx: tx.run(ended, {"id": jobs[JOBS // 2].id}))
    tried = """INSERT INTO attempts
        (prompt_id, job_id, number, backend_id, worker_id, client_id, dispatched_at, closed_at)
        SELECT 'prompt ' || id, id, 0, 'bck', 'wrk', 'client', 0, 1 FROM jobs"""
    await db.write(lambda tx: tx.run(tried))
    if db.dialect.name == "postgresql":
        await db.write(lambda tx: tx.run("ANALYZE"))
    return db


async def statements(db: Database) -> list[tuple[str, Params]]:
    """All that a submission, a claim, a start and the two ends of an attempt run."""
    claimant = await add_backend(db)
    seen: list[tuple[str, Params]] = []

    async def recorded(tx: Tx) -> None:
        recorder = Recorder(tx)
        news = [new_job(account="acc1", key="new", options=JobOptions(dedupe=True)), new_job(account="acc2")]
        await insert(recorder, news, queue_limit=10**9, far_from_limit=True)
        if not tx.dialect.one_writer:
            assert await claims._look(recorder, claimant, 1.0)
        for end in ("finish", "requeue", "storing"):
            taken = await claims.claim(recorder, claimant, prompt_id=new_prompt_id(), now=1.0)
            assert isinstance(taken, claims.Claimed)
            fence = taken.fence
            assert await transitions.started(recorder, fence, now=2.0)
            if end == "finish":
                ending = Ending(State.SUCCEEDED, values={"1": ["x"]}, backend_seconds=1.0)
                assert await transitions.finish(recorder, fence, ending, now=3.0)
            elif end == "requeue":
                assert await transitions.requeue(recorder, fence, reason="lost", now=3.0)
            else:
                assert await transitions.storing(recorder, fence)
        job, _ = await transitions.cancel(recorder, "acc2", news[1].id, now=4.0)
        assert job is not None
        seen.extend(recorder.seen)

    await db.write(recorded)
    return list(dict(seen).items())


async def test_no_statement_walks_over_what_grows(full: Database) -> None:
    asked = await statements(full)
    assert len(asked) > 20
    for sql, params in asked:
        for plan in await plans(full, sql, params):
            walked = {table for table in plan.walked if table in GROWS}
            if claims.READY[full.dialect.name] in sql:
                assert "ix_lanes_eligible" in plan.text
                assert "ix_jobs_ready" in plan.text
                assert plan.expected.get("lanes", ACCOUNTS) > MAX_LANES, (
                    f"{sql}\nexpects to walk far:\n{plan.text}"
                )
            assert not walked, f"{sql}\nwalks over {walked}:\n{plan.text}"


async def test_a_page_of_what_waits_walks_over_no_log(db: Database) -> None:
    """However long the log is: of 30 days, for the few that wait."""
    insert_many = """INSERT INTO webhook_deliveries
          (id, account_id, receiver, type, event_at, state, next_at, expires_at,
          created_at, log) VALUES (:id, :account, 'url_1', 'webhook.test', 0, :state, 0, 0, 0, '[]')"""
    lines = [
        {"id": f"msg_{n:06}", "account": LOCAL_ACCOUNT, "state": "delivered" if n else "waiting"}
        for n in range(JOBS)
    ]
    await db.write(lambda tx: tx.many(insert_many, lines))
    if db.dialect.name == "postgresql":
        await db.write(lambda tx: tx.run("ANALYZE"))
    seen: list[tuple[str, Params]] = []

    async def recorded(tx: Tx) -> None:
        recorder = Recorder(tx)
        found = await deliveries.page(
            recorder, LOCAL_ACCOUNT, before=None, limit=20, state=DeliveryState.WAITING
        )
        assert [one.id for one in found] == ["msg_000000"]
        seen.extend(recorder.seen)

    await db.write(recorded)
    for sql, params in seen:
        for plan in await plans(db, sql, params):
            assert "ix_webhook_deliveries_undelivered" in plan.text, plan.text


class Plan:
    """`walked`: tables that are read whole. `expected`: rows that are expected of a table, where that is told."""

    def __init__(self, text: str, walked: set[str], expected: dict[str, int] | None = None) -> None:
        self.text, self.walked, self.expected = text, walked, expected or {}


async def plans(db: Database, sql: str, params: Params) -> list[Plan]:
    """The database's plan; PostgreSQL's for these values, and that for any."""
    if db.dialect.name == "sqlite":
        rows = await db.read(lambda tx: tx.all("EXPLAIN QUERY PLAN " + sql, params))
        steps = [row["detail"] for row in rows]
        aliases = {"j": "jobs", "h": "jobs", "n": "lane_needs", "a": "attempts"}
        walked = {step.split()[1] for step in steps if step.startswith("SCAN") and "USING" not in step}
        return [Plan("\n".join(steps), {aliases.get(one, one) for one in walked})]
    statement = numbered(sql)
    with_values = f"EXPLAIN (FORMAT JSON) {sql}"
    rows = await db.write(lambda tx: tx.all(with_values, params))
    return [_plan(rows[0]["QUERY PLAN"]), _plan(await _generic(db, statement.sql))]


async def _generic(db: Database, sql: str) -> str:
    function = """CREATE FUNCTION pg_temp.plan_of(wanted text) RETURNS text LANGUAGE plpgsql AS
        $$ DECLARE found text; BEGIN
        EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || wanted INTO found; RETURN found; END $$"""

    async def ask(tx: Tx) -> str:
        await tx.run(function)
        row = await tx.one("SELECT pg_temp.plan_of(:sql) AS plan", {"sql": sql})
        await tx.run("DROP FUNCTION pg_temp.plan_of(text)")
        assert row is not None
        return str(row["plan"])

    return await db.write(ask)


def _plan(text: str) -> Plan:
    (found,) = json.loads(text)
    walked: set[str] = set()
    expected: dict[str, int] = {}

    def walk(node: dict[str, Any]) -> None:
        if "Relation Name" in node:
            expected[node["Relation Name"]] = node["Plan Rows"]
        if node["Node Type"] == "Seq Scan":
            walked.add(node["Relation Name"])
        for child in node.get("Plans", ()):
            walk(child)

    walk(found["Plan"])
    return Plan(json.dumps(found, indent=1), walked, expected)
