"""The claim: one short transaction that picks a job, raises its attempt and stores the attempt's prompt id.

The choice itself is `domain.scheduling.choose`, a pure function of the snapshot that is read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api_service.db import lanes
from comfy_api_service.db.base import Reader, Tx, dumps, loads
from comfy_api_service.db.records import grouped, output_from
from comfy_api_service.domain.job import OutputOptions
from comfy_api_service.domain.scheduling import (
    MAX_LANES,
    Choice,
    Lane,
    Need,
    Residency,
    Snapshot,
    choose,
)


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
    client_id: str
    graph: bytes | None
    params: Mapping[str, Any]
    output: OutputOptions
    model: str | None
    timing_key: str
    images: int
    dispatched_at: float


_LANES = """SELECT l.account_id, l.vtime, l.weight, l.served = 0 AS newcomer FROM lanes l
WHERE l.queued > 0 AND l.running < l.cap AND EXISTS (
  SELECT 1 FROM lane_needs n JOIN capabilities c
    ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
  WHERE n.account_id = l.account_id AND n.queued > 0)
ORDER BY l.vtime, l.account_id LIMIT :lanes"""

_HEADS = """SELECT n.account_id, n.requirement_id, n.queued, r.primary_model, j.id, j.priority, j.cost
FROM lane_needs n
JOIN capabilities c ON c.requirement_id = n.requirement_id AND c.inventory_hash = :inventory
JOIN requirements r ON r.id = n.requirement_id
JOIN jobs j ON j.id = (
  SELECT h.id FROM jobs h
  WHERE h.account_id = n.account_id AND h.requirement_id = n.requirement_id AND h.state = 'ready'
  ORDER BY h.priority DESC, h.id LIMIT 1)
WHERE {among} AND n.queued > 0"""


async def snapshot(tx: Reader, backend_id: str, inventory_hash: str) -> Snapshot:
    """What the choice rests on: at most 64 ready lanes in order of virtual time, and their needs' heads."""
    rows = await tx.all(_LANES, {"inventory": inventory_hash, "lanes": MAX_LANES})
    if not rows:
        return Snapshot(lanes=(), window=0.0)
    heads = await tx.all(
        _HEADS.format(among=tx.dialect.among("n.account_id", "accounts")),
        {
            "inventory": inventory_hash,
            "accounts": dumps([row["account_id"] for row in rows]),
        },
    )
    needs = grouped(heads, "account_id")
    backend = await tx.one("SELECT residency FROM backends WHERE id = :id", {"id": backend_id})
    elsewhere = await tx.all(
        """SELECT resident_model AS model, count(*) AS backends FROM backends
           WHERE id <> :id AND removed_at IS NULL AND state = 'online' AND resident_model IS NOT NULL
           GROUP BY resident_model""",
        {"id": backend_id},
    )
    residency = Residency.from_json(loads(backend["residency"]) if backend else None)
    models = {row["primary_model"] for row in heads if row["primary_model"] is not None}
    if residency.model is not None:
        models.add(residency.model)
    loads_measured = await tx.all(
        f"SELECT key, seconds FROM timings WHERE {tx.dialect.among('key', 'keys')}",
        {"keys": dumps(sorted(f"load:{model}" for model in models))},
    )
    return Snapshot(
        lanes=tuple(
            Lane(
                account=row["account_id"],
                vtime=row["vtime"],
                weight=row["weight"],
                newcomer=bool(row["newcomer"]),
                needs=tuple(
                    Need(
                        requirement=need["requirement_id"],
                        model=need["primary_model"],
                        queued=need["queued"],
                        head=need["id"],
                        head_priority=need["priority"],
                        head_cost=need["cost"],
                    )
                    for need in needs.get(row["account_id"], ())
                ),
            )
            for row in rows
        ),
        window=await lanes.window(tx),
        residency=residency,
        elsewhere={row["model"]: row["backends"] for row in elsewhere},
        load_times={row["key"].removeprefix("load:"): row["seconds"] for row in loads_measured},
    )


async def claim(tx: Tx, claimant: Claimant, *, prompt_id: str, now: float) -> Claimed | None:
    """Take the next job for a backend; None if nothing is ready that it could run."""
    seen = await snapshot(tx, claimant.backend_id, claimant.inventory_hash)
    choice = choose(seen)
    if choice is None:
        return None
    row = await tx.one(
        """UPDATE jobs SET state = 'dispatched', attempt = attempt + 1, backend_id = :backend
           WHERE id = :id AND state = 'ready'
           RETURNING attempt, graph, params, output, timing_key, images""",
        {"id": choice.job, "backend": claimant.backend_id},
    )
    if row is None:
        return None
    await tx.run(
        """INSERT INTO attempts (prompt_id, job_id, number, backend_id, worker_id, client_id, dispatched_at)
           VALUES (:prompt, :job, :number, :backend, :worker, :client, :now)""",
        {
            "prompt": prompt_id,
            "job": choice.job,
            "number": row["attempt"],
            "backend": claimant.backend_id,
            "worker": claimant.worker_id,
            "client": claimant.client_id,
            "now": now,
        },
    )
    await _charge(tx, claimant, choice)
    return Claimed(
        job_id=choice.job,
        account_id=choice.account,
        attempt=row["attempt"],
        prompt_id=prompt_id,
        client_id=claimant.client_id,
        graph=row["graph"],
        params=loads(row["params"]),
        output=output_from(row["output"]),
        model=choice.model,
        timing_key=row["timing_key"],
        images=row["images"],
        dispatched_at=now,
    )


async def _charge(tx: Tx, claimant: Claimant, choice: Choice) -> None:
    await lanes.leave(tx, choice.account, choice.requirement, cost=choice.cost)
    await tx.run(
        "UPDATE lanes SET running = running + 1, vtime = :vtime, served = 1 WHERE account_id = :account",
        {"account": choice.account, "vtime": choice.vtime},
    )
    await tx.run(
        """UPDATE workers SET start_tag = CASE WHEN start_tag < :tag THEN :tag ELSE start_tag END
           WHERE id = :worker""",
        {"tag": choice.start_tag, "worker": claimant.worker_id},
    )
    await tx.run(
        "UPDATE backends SET residency = :residency, resident_model = :model WHERE id = :id",
        {
            "id": claimant.backend_id,
            "residency": dumps(choice.residency.to_json()),
            "model": choice.residency.model,
        },
    )
