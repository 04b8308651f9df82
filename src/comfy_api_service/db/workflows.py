"""Stored workflows and their versions: changed by their owner, read by whoever may use them."""

from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.db.base import Reader, Row, Tx, loads, packed
from comfy_api_service.domain.templates.template import Template, document_of, template_from
from comfy_api_service.domain.workflow import Version, Workflow

OWNED: Final = "w.account_id = :account"
"""The owner's filter; every query that changes a workflow for a caller contains it."""
USABLE: Final = "(w.account_id = :account OR w.published_at IS NOT NULL)"
"""Of those who may see and run it."""
_COLUMNS: Final = (
    "w.id, w.account_id, w.name, w.description, w.version, w.published_at, w.created_at, w.updated_at"
)


async def insert(tx: Tx, workflow: Workflow, template: Template) -> None:
    await tx.run(
        """INSERT INTO workflows (id, account_id, name, description, version, created_at, updated_at)
           VALUES (:id, :account, :name, :description, 1, :now, :now)""",
        {
            "id": workflow.id,
            "account": workflow.account_id,
            "name": workflow.name,
            "description": workflow.description,
            "now": workflow.created_at,
        },
    )
    await _insert_version(tx, workflow.id, 1, template, workflow.created_at)


async def _insert_version(tx: Tx, workflow_id: str, number: int, template: Template, now: float) -> None:
    await tx.run(
        """INSERT INTO workflow_versions (workflow_id, number, document, created_at)
           VALUES (:id, :number, :document, :now)""",
        {"id": workflow_id, "number": number, "document": packed(document_of(template)), "now": now},
    )


async def get(tx: Reader, account_id: str, workflow_id: str) -> Workflow | None:
    row = await tx.one(
        f"SELECT {_COLUMNS} FROM workflows w WHERE w.id = :id AND {USABLE}",
        {"id": workflow_id, "account": account_id},
    )
    return None if row is None else _workflow(row)


async def page(tx: Reader, account_id: str, *, before: str | None, limit: int) -> list[Workflow]:
    """Own ones and published ones, newest first; `before` is the last id of the page before."""
    rows = await tx.all(
        f"""SELECT {_COLUMNS} FROM workflows w WHERE {USABLE} AND (CAST(:before AS text) IS NULL OR w.id < :before)
            ORDER BY w.id DESC LIMIT :limit""",
        {"account": account_id, "before": before, "limit": limit},
    )
    return [_workflow(row) for row in rows]


async def version(tx: Reader, account_id: str, workflow_id: str, number: int | None) -> Version | None:
    """This one, or the latest."""
    row = await tx.one(
        f"""SELECT v.number, v.document, v.created_at FROM workflow_versions v JOIN workflows w ON w.id = v.workflow_id
            WHERE w.id = :id AND {USABLE} AND v.number = coalesce(:number, w.version)""",
        {"id": workflow_id, "account": account_id, "number": number},
    )
    if row is None:
        return None
    document: Mapping[str, Any] = loads(row["document"])
    return Version(row["number"], template_from(document), row["created_at"])


async def versions(tx: Reader, account_id: str, workflow_id: str) -> list[tuple[int, float]]:
    """Numbers and times, the latest first."""
    rows = await tx.all(
        f"""SELECT v.number, v.created_at FROM workflow_versions v JOIN workflows w ON w.id = v.workflow_id
            WHERE w.id = :id AND {USABLE} ORDER BY v.number DESC""",
        {"id": workflow_id, "account": account_id},
    )
    return [(row["number"], row["created_at"]) for row in rows]


async def hold(tx: Tx, account_id: str, workflow_id: str) -> Workflow | None:
    """The owner's, locked: versions are numbered one by one."""
    row = await tx.one(
        f"SELECT {_COLUMNS} FROM workflows w WHERE w.id = :id AND {OWNED}{tx.dialect.locking('w')}",
        {"id": workflow_id, "account": account_id},
    )
    return None if row is None else _workflow(row)


async def change(tx: Tx, held: Workflow, template: Template | None, now: float) -> None:
    """Name and description as they are in `held`; with a template, its next version."""
    number = held.version if template is None else held.version + 1
    await tx.run(
        """UPDATE workflows SET name = :name, description = :description, version = :number, updated_at = :now
           WHERE id = :id AND account_id = :account""",
        {
            "id": held.id,
            "account": held.account_id,
            "name": held.name,
            "description": held.description,
            "number": number,
            "now": now,
        },
    )
    if template is not None:
        await _insert_version(tx, held.id, number, template, now)


async def count(tx: Reader, account_id: str) -> int:
    row = await tx.one(f"SELECT count(*) AS n FROM workflows w WHERE {OWNED}", {"account": account_id})
    return int(row["n"]) if row else 0


async def publish(tx: Tx, workflow_id: str, at: float | None) -> bool:
    """For everybody from now on, or with None no more; by an administrator. False if there is none."""
    return (
        await tx.run(
            "UPDATE workflows SET published_at = :at WHERE id = :id",
            {"id": workflow_id, "at": at},
        )
        > 0
    )


async def delete(tx: Tx, account_id: str, workflow_id: str) -> bool:
    """With its versions; jobs that were made from it stay as they are, with its id."""
    return (
        await tx.run(
            "DELETE FROM workflows WHERE id = :id AND account_id = :account",
            {"id": workflow_id, "account": account_id},
        )
        > 0
    )


def _workflow(row: Row) -> Workflow:
    return Workflow(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        description=row["description"],
        version=row["version"],
        published_at=row["published_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
