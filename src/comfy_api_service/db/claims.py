"""The claim: one short transaction that picks a job, raises its attempt and stores the attempt's prompt id.

The choice itself is `domain.scheduling.choose`, a pure function of the snapshot that is read here. On PostgreSQL it
is made without a lock and carried out by one call, if what it rests on still holds; otherwise, and on SQLite, all is
one transaction. Where others claim at the same time, a lane that one of them has is waited for, and passed by if
that takes long: who is next in line goes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from comfy_api_service.db import lanes
from comfy_api_service.db.base import Database, LockTimeout, Reader, Row, Tx, dumps, loads
from comfy_api_service.db.records import grouped, inputs_from, output_from
from comfy_api_service.db.transitions import Fence
from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.domain.scheduling import (
    MAX_LANES,
    Choice,
    Lane,
    Need,
    Residency,
    Snapshot,
    choose,
    standing,
)
from comfy_api_service.domain.upload import JobInput


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims: one worker, for one backend, under one session's client id."""

    backend_id: str
    worker_id: str
    client_id: str
    inventory_hash: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """An attempt that was opened for the claimant; nothing was sent to the backend yet."""

    job_id: str
    account_id: str
    attempt: int
    prompt_id: str
    worker_id: str
    client_id: str
    graph: bytes | None
    params: Mapping[str, Any]
    output: OutputOptions
    model: str | None
    timing_key: str
    images: int
    dispatched_at: float
    queued_at: float
    inputs: tuple[JobInput, ...] = ()
    trace_context: str | None = None

    @property
    def fence(self) -> Fence:
        return Fence(self.job_id, self.attempt, self.worker_id)


class Busy(Enum):
    """Others have all that is ready, just now."""

    BUSY = "busy"


ROUNDS: Final = 8
"""How often one claim looks again for what others have not taken meanwhile."""
PATIENCE: Final = "50ms"
"""How long a claim waits for the lane that is due, before it passes by all that are locked."""


_LANES = f"""WITH l AS (
  SELECT account_id, vtime, weight, served = 0 AS newcomer FROM lanes
  WHERE queued > 0 AND running < cap AND (
    SELECT 1 FROM lane_needs n JOIN capabilities c
      ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
    WHERE n.account_id = lanes.account_id AND n.queued > 0 LIMIT 1) IS NOT NULL
  ORDER BY vtime, account_id LIMIT {MAX_LANES})
SELECT l.account_id, l.vtime, l.weight, l.newcomer, n.requirement_id, n.queued, {{model}} AS model,
  j.id, j.priority, j.cost, j.out_of_memory FROM l"""
_NEEDS = """lane_needs n
  JOIN capabilities c ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
  JOIN requirements r ON r.id = n.requirement_id"""
_HEAD = """FROM jobs h
  WHERE h.account_id = n.account_id AND h.requirement_id = n.requirement_id AND h.state = 'ready'
  ORDER BY h.priority DESC, h.id LIMIT 1"""
READY: Final[Mapping[str, str]] = {
    "sqlite": f"""{_LANES.format(model="r.primary_model")} JOIN {_NEEDS}
JOIN jobs j ON j.id = (SELECT h.id {_HEAD})
WHERE n.account_id = l.account_id AND n.queued > 0""",
    "postgresql": f"""{_LANES.format(model="n.primary_model")}
CROSS JOIN LATERAL (SELECT n.account_id, n.requirement_id, n.queued, r.primary_model FROM {_NEEDS}
  WHERE n.account_id = l.account_id AND n.queued > 0 OFFSET 0) n
CROSS JOIN LATERAL (SELECT h.id, h.priority, h.cost, h.out_of_memory {_HEAD}) j""",
}
"""At most 64 ready lanes in order of virtual time, and the heads of their needs: a row a need, by dialect.

Neither queue nor lanes are walked over, however many there are: lanes are looked at in order until there are
enough, then the needs of those. (With EXISTS and plain joins PostgreSQL begins with all needs of all lanes. With
`1 = (SELECT …)` it expects one lane in 200 to be ready, and sorts all of them rather than walk that far.)
"""

_FACTS = """SELECT 'loaded' AS kind, resident_model AS key, CAST(count(*) AS double precision) AS value FROM backends
WHERE id <> :id AND removed_at IS NULL AND state = 'online' AND resident_model IS NOT NULL GROUP BY resident_model
UNION ALL SELECT 'measured', key, seconds FROM timings
WHERE {among} OR key = (SELECT 'load:' || resident_model FROM backends WHERE id = :id)"""


ELSEWHERE_SECONDS: Final = 60.0
"""How long a job that ran out of a backend's memory is left to others: they may have long jobs, or be less well than
they seem, and the memory was freed."""
_TOO_LARGE: Final = """SELECT j.id FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
WHERE {among} AND a.backend_id = :id AND a.closed_at > :since AND EXISTS (
  SELECT 1 FROM capabilities c JOIN backends b ON b.inventory_hash = c.inventory_hash
  WHERE c.requirement_id = j.requirement_id AND b.id <> :id AND b.state = 'online' AND b.draining = 0
    AND b.removed_at IS NULL)"""


async def ready_lanes(tx: Reader, claimant: Claimant, now: float) -> tuple[Lane, ...]:
    """What the claimant could run, but for what ran out of its memory a moment ago and another backend can run."""
    rows = await tx.all(READY[tx.dialect.name], {"inventory": claimant.inventory_hash})
    return await _lanes(tx, claimant, rows, now)


async def _lanes(tx: Reader, claimant: Claimant, rows: Sequence[Row], now: float) -> tuple[Lane, ...]:
    again = sorted(row["id"] for row in rows if row["out_of_memory"])
    if again:
        elsewhere = await tx.all(
            _TOO_LARGE.format(among=tx.dialect.among("j.id", "jobs")),
            {"jobs": dumps(again), "id": claimant.backend_id, "since": now - ELSEWHERE_SECONDS},
        )
        leave = {row["id"] for row in elsewhere}
        rows = [row for row in rows if row["id"] not in leave]
    return tuple(_lane(needs) for needs in grouped(rows, "account_id").values())


def _lane(rows: Sequence[Row]) -> Lane:
    return Lane(
        account=rows[0]["account_id"],
        vtime=float(rows[0]["vtime"]),
        weight=float(rows[0]["weight"]),
        newcomer=bool(rows[0]["newcomer"]),
        needs=tuple(
            Need(
                requirement=row["requirement_id"],
                model=row["model"],
                queued=row["queued"],
                head=row["id"],
                head_priority=row["priority"],
                head_cost=float(row["cost"]),
            )
            for row in rows
        ),
    )


async def _snapshot(tx: Tx, claimant: Claimant, ready: tuple[Lane, ...], *, patient: bool) -> Snapshot | None:
    """All that the choice rests on, with the backend's row locked; None if the backend is another worker's."""
    models = {need.model for lane in ready for need in lane.needs}
    keys = ["all", *sorted(f"load:{model}" for model in models if model is not None)]
    backend, rows = await tx.several(
        (
            f"""SELECT residency{tx.dialect.patience(PATIENCE) if patient else ""} FROM backends
                WHERE id = :id AND worker_id = :worker"""
            + tx.dialect.locking("backends"),
            {"id": claimant.backend_id, "worker": claimant.worker_id},
        ),
        (
            _FACTS.format(among=tx.dialect.among("key", "keys")),
            {"id": claimant.backend_id, "keys": dumps(keys)},
        ),
    )
    if not backend:
        return None
    measured = {row["key"]: row["value"] for row in rows if row["kind"] == "measured"}
    return Snapshot(
        lanes=ready,
        window=lanes.window_of(measured.pop("all", None)),
        residency=Residency.from_json(loads(backend[0]["residency"])),
        elsewhere={row["key"]: int(row["value"]) for row in rows if row["kind"] == "loaded"},
        load_times={key.removeprefix("load:"): seconds for key, seconds in measured.items()},
    )


async def next_job(
    db: Database, claimant: Claimant, *, prompt_id: str, now: float, wanted: set[str] | None = None
) -> Claimed | Busy | None:
    """Take the next job for a backend; None if nothing is ready that it could run, or if it has another worker.

    `Busy` says that something is ready, and to come back at once: others had it, also after a short wait. `wanted`:
    jobs that claimants of this process are about to take; where all have room, they would all ask for the only one.
    """
    try:
        if not db.dialect.one_writer:
            claimed = await _at_once(db, claimant, prompt_id, now, set() if wanted is None else wanted)
            if not isinstance(claimed, Busy):
                return claimed
        return await db.write(lambda tx: claim(tx, claimant, prompt_id=prompt_id, now=now, patient=True))
    except LockTimeout:
        return await db.write(lambda tx: claim(tx, claimant, prompt_id=prompt_id, now=now))


async def claim(
    tx: Tx, claimant: Claimant, *, prompt_id: str, now: float, patient: bool = False
) -> Claimed | Busy | None:
    """One try of `next_job`. `patient`: waits for the lane that is due, instead of passing it by.

    Who has most of the pool is claimed from, and ended in, more often than others: passed by whenever somebody
    has its lane, it would get less than its share.
    """
    ready = await ready_lanes(tx, claimant, now)
    if not ready:
        return None
    seen = await _snapshot(tx, claimant, ready, patient=patient)
    if seen is None:
        return None
    for _ in range(ROUNDS):
        choice = choose(seen)
        if choice is None:
            break
        held = await _hold(tx, choice, patient=patient)
        if held is None:
            seen = replace(seen, lanes=_without(seen, choice.account))
            continue
        if held == choice.start_tag:
            claimed = await _take(tx, claimant, choice, prompt_id, now)
            if claimed is not None:
                return claimed
        seen = replace(seen, lanes=await ready_lanes(tx, claimant, now))  # others were faster
    return Busy.BUSY


_LOOK: Final = f"""WITH ready AS MATERIALIZED ({READY["postgresql"]})
SELECT (SELECT jsonb_agg(to_jsonb(r)) FROM ready r) AS ready,
  (SELECT coalesce(residency, :nothing) FROM backends WHERE id = :id AND worker_id = :worker) AS residency,
  (SELECT jsonb_object_agg(o.model, o.backends) FROM (
    SELECT resident_model AS model, count(*) AS backends FROM backends
    WHERE id <> :id AND removed_at IS NULL AND state = 'online' AND resident_model IS NOT NULL GROUP BY resident_model
  ) AS o WHERE EXISTS (SELECT FROM ready)) AS elsewhere,
  (SELECT jsonb_object_agg(t.key, t.seconds) FROM timings t WHERE EXISTS (SELECT FROM ready) AND t.key = ANY (ARRAY(
    SELECT 'load:' || model FROM ready UNION SELECT 'all'
    UNION SELECT 'load:' || resident_model FROM backends WHERE id = :id))) AS timings"""
"""All that a choice rests on, by one question, which costs little more than `READY` if nothing is."""
_NOTHING: Final = dumps(Residency().to_json())


async def _at_once(
    db: Database, claimant: Claimant, prompt_id: str, now: float, wanted: set[str]
) -> Claimed | Busy | None:
    """Choose without a lock, then take it by one call (migration 0012), which does nothing if what the choice rests on
    has changed meanwhile: no lane is locked over a round trip.
    """
    looked = await db.read(lambda tx: _look(tx, claimant, now))
    if looked is None:
        return None
    seen, remembered = looked
    choice = choose(seen)
    if choice is None:
        return Busy.BUSY
    lowest, highest = standing(seen, choice)
    lane = next(lane for lane in seen.lanes if lane.account == choice.account)
    need = next(need for need in lane.needs if need.requirement == choice.requirement)
    call = {
        **_taking(claimant, choice, prompt_id, now),
        "before": remembered,
        "nothing": _NOTHING,
        "lowest": lowest,
        "highest": highest,
        "priority": need.head_priority,
        "charge": choice.cost / lane.weight,
        "or_next": len(lane.needs) == 1,
        "patience": PATIENCE,
    }
    alone = len(seen.lanes) == len(lane.needs) == need.queued == 1
    if alone and choice.job in wanted:
        return None
    wanted.add(choice.job)
    try:
        row = await db.write(lambda tx: tx.one(_TAKE, call), single=True)
    finally:
        wanted.discard(choice.job)
    if row is not None:
        return _claimed(claimant, choice, prompt_id, now, row)
    return None if alone else Busy.BUSY  # a job that came since the look wakes who claims


async def _look(tx: Reader, claimant: Claimant, now: float) -> tuple[Snapshot, str] | None:
    """What there is, with the residency as it is written; None if nothing is ready, or the backend another worker's."""
    found = await tx.one(
        _LOOK,
        {
            "inventory": claimant.inventory_hash,
            "id": claimant.backend_id,
            "worker": claimant.worker_id,
            "nothing": _NOTHING,
        },
    )
    if found is None or found["ready"] is None or found["residency"] is None:
        return None
    ready = await _lanes(tx, claimant, loads(found["ready"]), now)
    if not ready:
        return None
    measured = loads(found["timings"]) or {}
    snapshot = Snapshot(
        lanes=ready,
        window=lanes.window_of(measured.pop("all", None)),
        residency=Residency.from_json(loads(found["residency"])),
        elsewhere=loads(found["elsewhere"]) or {},
        load_times={key.removeprefix("load:"): seconds for key, seconds in measured.items()},
    )
    return snapshot, found["residency"]


_TAKE: Final = """SELECT * FROM claim_job_1(
  :backend, :worker, :client, :prompt, :now, :before, :nothing, :lowest, :highest, :account, :need, :job, :priority,
  :cost, :charge, :residency, :model, :or_next, :patience)"""


def _taking(claimant: Claimant, choice: Choice, prompt_id: str, now: float) -> dict[str, object]:
    """What a claim writes."""
    return {
        "backend": claimant.backend_id,
        "worker": claimant.worker_id,
        "client": claimant.client_id,
        "prompt": prompt_id,
        "now": now,
        "account": choice.account,
        "job": choice.job,
        "need": choice.requirement,
        "cost": choice.cost,
        "tag": choice.start_tag,
        "residency": dumps(choice.residency.to_json()),
        "model": choice.residency.model,
    }


def _without(seen: Snapshot, account: str) -> tuple[Lane, ...]:
    """The lanes but this one, which keeps its place: nobody gets further ahead of it than the window."""
    furthest = min(lane.vtime for lane in seen.lanes) + seen.window
    return tuple(lane for lane in seen.lanes if lane.account != account and lane.vtime <= furthest)


async def _hold(tx: Tx, choice: Choice, *, patient: bool) -> float | None:
    """Lock the lane; its virtual time. None if somebody else has it, or if it is ready no more."""
    if tx.dialect.one_writer:
        return choice.start_tag
    row = await tx.one(
        "SELECT vtime FROM lanes WHERE account_id = :account AND queued > 0 AND running < cap"
        + tx.dialect.locking("lanes")
        + ("" if patient else " SKIP LOCKED"),
        {"account": choice.account},
    )
    return None if row is None else float(row["vtime"])


async def _take(tx: Tx, claimant: Claimant, choice: Choice, prompt_id: str, now: float) -> Claimed | None:
    """Open an attempt on the chosen job, whose lane is held; None if the job was taken meanwhile."""
    values = _taking(claimant, choice, prompt_id, now)
    row = await tx.one(
        """UPDATE jobs SET state = 'dispatched', attempt = attempt + 1, backend_id = :backend
           WHERE id = :job AND state = 'ready'
           RETURNING id, attempt, graph, params, output, timing_key, images, inputs, queued_at, trace_context""",
        values,
    )
    if row is None:
        return None
    await tx.together(
        (
            """INSERT INTO attempts (prompt_id, job_id, number, backend_id, worker_id, client_id, dispatched_at)
               VALUES (:prompt, :job, :number, :backend, :worker, :client, :now)""",
            {**values, "number": row["attempt"]},
        ),
        *lanes.leave_need(choice.account, choice.requirement),
        (
            lanes.CHANGE,
            lanes.change(
                choice.account, vtime=choice.vtime, running=1, queued=-1, cost=-choice.cost, served=1
            ),
        ),
        (
            """UPDATE backends SET residency = :residency, resident_model = :model,
                 start_tag = CASE WHEN start_tag < :tag THEN :tag ELSE start_tag END WHERE id = :backend""",
            values,
        ),
    )
    return _claimed(claimant, choice, prompt_id, now, row)


def _claimed(claimant: Claimant, choice: Choice, prompt_id: str, now: float, row: Row) -> Claimed:
    return Claimed(
        job_id=row["id"],
        account_id=choice.account,
        attempt=row["attempt"],
        prompt_id=prompt_id,
        worker_id=claimant.worker_id,
        client_id=claimant.client_id,
        graph=row["graph"],
        params=loads(row["params"]),
        output=output_from(row["output"]),
        model=choice.model,
        timing_key=row["timing_key"],
        images=row["images"],
        dispatched_at=now,
        queued_at=row["queued_at"],
        inputs=inputs_from(row["inputs"]),
        trace_context=row["trace_context"],
    )
