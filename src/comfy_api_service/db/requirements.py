"""What jobs need of a backend, and which inventories satisfy it.

A capability is a fact about content: inventory hash × requirement. It is written once, when either is new.
"""

from collections import OrderedDict
from collections.abc import Mapping

import orjson

from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.graph import ModelRef, Requirement
from comfy_api_service.domain.inventory import Inventory


def _from_row(row: Row) -> Requirement:
    return Requirement(
        id=row["id"],
        nodes=tuple(loads(row["nodes"])),
        models=tuple(ModelRef(kind, name) for kind, name in loads(row["models"])),
        primary=row["primary_model"],
    )


async def ensure_requirements(tx: Tx, wanted: Mapping[str, Requirement], now: float) -> None:
    """Write what is new, with the inventories in use that satisfy it."""
    known = {
        row["id"]
        for row in await tx.all(
            f"SELECT id FROM requirements WHERE {tx.dialect.among('id', 'ids')}",
            {"ids": dumps(sorted(wanted))},
        )
    }
    fresh = [wanted[key] for key in sorted(wanted.keys() - known)]
    if not fresh:
        return
    await tx.lock("requirements")  # or a need and an inventory that come at once would not see each other
    await tx.many(
        """INSERT INTO requirements (id, nodes, models, primary_model, created_at)
           VALUES (:id, :nodes, :models, :primary, :now) ON CONFLICT (id) DO NOTHING""",
        [
            {
                "id": need.id,
                "nodes": dumps(need.nodes),
                "models": dumps([(model.kind, model.name) for model in need.models]),
                "primary": need.primary,
                "now": now,
            }
            for need in fresh
        ],
    )
    for row in await tx.all("SELECT hash FROM inventories"):
        inventory = await inventory_of(tx, row["hash"])
        await _note(tx, row["hash"], [need for need in fresh if inventory.satisfies(need)])


async def store_inventory(tx: Tx, inventory: Inventory, now: float) -> None:
    """Write an inventory, if it is new, with the requirements that it satisfies."""
    known = await tx.one("SELECT 1 AS known FROM inventories WHERE hash = :hash", {"hash": inventory.hash})
    if known is not None:
        return
    await tx.lock("requirements")
    await tx.run(
        """INSERT INTO inventories (hash, document, created_at) VALUES (:hash, :document, :now)
           ON CONFLICT (hash) DO NOTHING""",
        {"hash": inventory.hash, "document": orjson.dumps(inventory.document()), "now": now},
    )
    needs = [
        _from_row(row) for row in await tx.all("SELECT id, nodes, models, primary_model FROM requirements")
    ]
    await _note(tx, inventory.hash, [need for need in needs if inventory.satisfies(need)])  # fmt: skip


async def _note(tx: Tx, inventory_hash: str, satisfied: list[Requirement]) -> None:
    await tx.many(
        """INSERT INTO capabilities (inventory_hash, requirement_id) VALUES (:hash, :need)
           ON CONFLICT (inventory_hash, requirement_id) DO NOTHING""",
        [{"hash": inventory_hash, "need": need.id} for need in satisfied],
    )


_parsed: OrderedDict[str, Inventory] = OrderedDict()
"""Inventories by the hash of their content, for all threads: an entry can be dropped but never be wrong."""
_PARSED_AT_MOST = 64


async def inventory_of(tx: Reader, inventory_hash: str) -> Inventory:
    """The inventory with this hash; parsed once a process. `KeyError` if there is none."""
    inventory = _parsed.get(inventory_hash)
    if inventory is None:
        row = await tx.one("SELECT document FROM inventories WHERE hash = :hash", {"hash": inventory_hash})
        if row is None:
            raise KeyError(inventory_hash)
        inventory = Inventory.from_document(orjson.loads(row["document"]))
        _parsed[inventory_hash] = inventory
        while len(_parsed) > _PARSED_AT_MOST:
            _parsed.popitem(last=False)
    return inventory


async def forget_unused(tx: Tx, before: float) -> int:
    """Delete requirements without jobs, and inventories without backends, made before a moment."""
    gone = await tx.run(
        """DELETE FROM requirements WHERE created_at < :before
           AND id NOT IN (SELECT requirement_id FROM lane_needs)
           AND id NOT IN (SELECT requirement_id FROM jobs WHERE state IN ('dispatched', 'executing', 'storing'))""",
        {"before": before},
    )
    await tx.run(
        """DELETE FROM inventories WHERE created_at < :before
           AND NOT EXISTS (SELECT 1 FROM backends WHERE backends.inventory_hash = inventories.hash)""",
        {"before": before},
    )
    await tx.run("DELETE FROM capabilities WHERE inventory_hash NOT IN (SELECT hash FROM inventories)")
    return gone
