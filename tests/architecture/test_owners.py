"""Everything that is somebody's is read and changed by its owner alone, or by a query that is named here.

Each statement of the database's modules that reads or changes a table of owned rows must ask for the owner. Those
that must not, the workers', the scheduler's and the operators', are listed: a new one fails until it is.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import comfy_api_service
from comfy_api_service.db.jobs import _RARE

DB: Final = Path(comfy_api_service.__file__).parent / "db"
OWNED: Final = (
    "jobs",
    "job_labels",
    "batches",
    "api_keys",
    "usage_days",
    "artifacts",
    "events",
    "ledger",
    "uploads",
    "job_uploads",
    "webhooks",
    "webhook_secrets",
    "webhook_deliveries",
)
_TOUCHES: Final = re.compile(rf"\b(?:FROM|JOIN|UPDATE)\s+({'|'.join(OWNED)})\b", re.IGNORECASE)
_OWNER: Final = re.compile(
    r"account_id\s*=\s*:account|\(account_id\) = |\{OWNED\}|\{jobs\.OWNED\}|\{accounts\}"
)

NOT_FOR_CALLERS: Final = {
    # the scheduler: whose job is next is what is asked
    "claims", "insertion", "allowances",
    # attempts of workers, fenced by attempt and worker
    "transitions", "endings", "work",
    # what operators see of all accounts, behind the dependency that lets administrators in
    "operators",
    # deliverers: what is due is what is asked, of receivers that they hold
    "dispatch",
    # background: what counters count, needs that were forgotten
    "counters", "requirements",
    # backups: all of it, from the shell
    "kept",
}  # fmt: skip
"""Modules that no caller's id ever reaches but as a value that is written."""
BY_NAME: Final = {
    "api_keys.every": "operators list all keys",
    "api_keys.owner_of": "operators revoke anybody's key",
    "api_keys.note_use": "by the ids of keys that were just shown",
    "credentials": "who calls is what is asked",
    "uploads.take_out_expired": "background: by age",
    "uploads.of_jobs": "for workers, by ids that jobs of theirs name",
    "uploads.kept_keys": "background: which files have a row",
    "uploads._needed": "of uploads that were just locked with their owner, or by age",
    "uploads._forget": "of uploads that were just locked with their owner, or by age",
    "usage.lines": "the operators' export",
    "batches.note_others": "in the transaction that has just written the batch",
    "jobs.with_artifacts": "of rows that were read with their owner",
    "deliveries.page": "its conditions begin with the owner's, as is tested here",
    "jobs.page": "its conditions begin with the owner's, as is tested here",
    "jobs._of_statuses": "within the page's; conditions are those of the partial indexes, the owner's among them",
    "jobs.ended_among": "for listeners, who were checked when they came",
    "jobs.artifact_keys": "of jobs that were just marked, by their owner or their age",
    "jobs.mark_purged": "of a job that was just read with its owner, or by age",
    "jobs.is_kept": "behind a signature that only the owner was given",
}


def statements() -> Iterator[tuple[str, str]]:
    """Module and function of each text that touches owned rows, and the text; f-strings with their names."""
    for path in sorted(DB.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            name = getattr(node, "name", None)
            where = path.stem if name is None else f"{path.stem}.{name}"
            for text in _texts(node):
                if _TOUCHES.search(text):
                    yield where, text


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield ast.unparse(node).replace("\\n", " ")
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
        return
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)


def excused(where: str) -> bool:
    module = where.partition(".")[0]
    return module in NOT_FOR_CALLERS or where in BY_NAME or module in BY_NAME


def test_no_query_goes_around_the_owner() -> None:
    around = [(where, text) for where, text in statements() if not excused(where) and not _OWNER.search(text)]
    assert not around


def test_no_excuse_is_left_over() -> None:
    seen = {where for where, _ in statements()}
    modules = {where.partition(".")[0] for where in seen}
    assert modules >= NOT_FOR_CALLERS
    assert {name for name in BY_NAME if name not in seen and name not in modules} == set()


def test_pages_begin_with_the_owner() -> None:
    for page in ("jobs", "deliveries"):
        assert "where = [OWNED]" in (DB / f"{page}.py").read_text(encoding="utf-8")
    assert all(":account" in condition for condition in _RARE.values())
