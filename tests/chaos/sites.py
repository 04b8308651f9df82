"""The names of all failpoints, found in the code: a new write, call, put or signal is one without being listed."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import comfy_api_service
from comfy_api_service import db, signals, storage
from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.db.base import Database
from comfy_api_service.redis_link.link import RedisLink
from comfy_api_service.signals.base import Signals
from comfy_api_service.storage.base import Storage
from comfy_api_service.storage.tree import Tree

SOURCES: Final = Path(comfy_api_service.__file__).parent
BEFORE, INSIDE, AFTER = "before", "inside", "after"
"""`inside`: a transaction has written all it will, and is not committed."""

CALLS: Final = tuple(
    name
    for name, function in vars(ComfyClient).items()
    if not name.startswith("_") and inspect.isfunction(function)
)
"""Every call to ComfyUI."""
STORES: Final = ("put", "delete", "expect", "forget")
"""What changes a store; `check` and the sweeps are upkeep of minutes and hours."""
PUBLICATIONS: Final = ("wake", "publish", "ask_cancel", "pool_changed")
EXCHANGES: Final = (RedisLink.ask.__name__,)
"""What is sent to Redis: publications are, some at a time, a little after they were put down."""

RARE: Final = {
    "db.parts": "before the service answers anything",
    **{
        f"db.{name}": "of people and operators: the load has a key, or needs none"
        for name in (
            "Access.note_uses",
            "Access.of_ticket",
            "Access.ticket",
            "Keys.create",
            "Keys.revoke",
            "Logins.login",
            "Logins.logout",
            "Logins._refused",
            "Logins.refresh",
            "Logins.register",
            "Users.change",
            "Users.create",
            "Users.remove",
            "Webhooks.change",
            "Webhooks.create",
            "Webhooks.delete",
            "Webhooks.replay",
            "Webhooks.rotate",
            "Webhooks.rotate_account_secret",
            "Webhooks.test",
            "Workflows.add",
            "Workflows.delete",
            "Workflows.publish",
            "Workflows.replace",
        )
    },
    **{
        f"db.{name}": "nobody has a webhook: who delivers them is killed by a load of its own"
        for name in (
            "Deliverer._claim",
            "Deliverer._fan_out",
            "Deliverer._renew",
            "Deliverer.drain",
            "LaneWork._until_written",
        )
    },
    "db.Deliverer.run": "before the service answers anything",
    "db.apply_tiers": "before the service answers anything",
    "db.Backends.add": "an operator's wish",
    "db.Backends.remove": "an operator's wish",
    "db.Backends.set_draining": "an operator's wish",
    "db.Fleet._rescue": "only of backends that were taken off the list with prompts on them",
    "db.Driver._claimed_after_all": "only if the answer to a claim's commit was lost",
    "db.Batches.submit": "the load sends no batches: nothing tells an unanswered one from another",
    "db.Jobs.purge": "the load deletes no results: the checker wants to see them",
    "db.Preparation.prepare": "only of jobs that came before any inventory was known",
    "db.Reporter.give_up": "only of jobs past their deadline, and unservable ones",
    "db.Reporter.is_closed": "only of a prompt whose attempt another worker took over meanwhile",
    "db.Reporter.left_over": "only if an attempt was replaced, or a commit's answer was lost",
    "db.Upkeep.delete_expired": "results expire after days",
    "db.Upkeep.delete_expired_uploads": "uploads expire after a day",
    "db.Uploads._add": "the load uploads nothing",
    "db.Uploads.delete": "the load uploads nothing",
    "db.Upkeep._by_chunks": "every ten minutes",
    "db.Upkeep.forget_old": "every ten minutes",
    "db.forget": "every ten minutes",
    "db.mend": "only if counters were wrong",
    "store.delete": "results are deleted after days, or when an attempt that was replaced left some",
    "comfyui.free": "only when a backend is out of memory",
    "comfyui.upload_image": "the load's jobs have no inputs",
}
"""Sites that a run of some seconds does not come by, with the reason."""

SHARED: Final = ("db.Fleet._leave", "db.SharedLease._prove", "db.Worker._bury", "db._at_once", "redis.ask")
"""Sites that only workers on a database for many come by."""


def implementations(package: ModuleType, protocol: type) -> list[type]:
    """Every class of a package that has all methods of the Protocol."""
    wanted = [
        name for name, what in vars(protocol).items() if not name.startswith("_") and inspect.isfunction(what)
    ]
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name in {"base", "traced"} or module.ispkg:  # what is traced goes on to what it wraps
            continue
        content = importlib.import_module(f"{package.__name__}.{module.name}")
        found += [
            one
            for one in vars(content).values()
            if inspect.isclass(one)
            and one.__module__ == content.__name__
            and all(hasattr(one, name) for name in wanted)
        ]
    return found


def databases() -> list[Any]:
    return implementations(db, Database)


def stores() -> list[Any]:
    return implementations(storage, Storage)


def carriers() -> list[Any]:
    return implementations(signals, Signals)


def site(function: Any) -> str:
    """The name of a transaction's function: where it was written, without what only Python adds."""
    name: str = function.__qualname__
    return name.partition(".<locals>")[0]


def writes() -> set[str]:
    """Every place in the code that writes to the database, as `site` will name it."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if path.is_relative_to(SOURCES / "simulator"):
            continue
        found.update(_writes_in(ast.parse(path.read_text(encoding="utf-8")), ()))
    return found


def _writes_in(node: ast.AST, around: tuple[str, ...]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _writes_in(child, (*around, child.name))
            continue
        if isinstance(child, ast.Call) and _is_write(child.func):
            yield _named(child.args[0], around)
        yield from _writes_in(child, around)


def _is_write(called: ast.expr) -> bool:
    if not isinstance(called, ast.Attribute):
        return False
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return called.attr == "persist" or (called.attr == "write" and name in {"db", "_db"})


def _named(argument: ast.expr, around: tuple[str, ...]) -> str:
    if isinstance(argument, ast.Attribute):
        return argument.attr
    if around[-1] == "persist":
        return ""
    depth = 2 if around[0][0].isupper() else 1
    return ".".join(around[:depth])


def points(*, shared: bool = False) -> tuple[str, ...]:
    """Every failpoint that a run can reach, sorted; `shared`: one with several workers."""
    found = {f"db.{name}.{when}" for name in writes() - {""} for when in (BEFORE, INSIDE, AFTER)}
    for kind, names in (
        ("comfyui", CALLS),
        ("store", (*STORES, *(name for name in ("publish",) if hasattr(Tree, name)))),
        ("signal", PUBLICATIONS),
        ("redis", EXCHANGES),
    ):
        found |= {f"{kind}.{name}.{when}" for name in names for when in (BEFORE, AFTER)}
    left_out = {*RARE, *(() if shared else SHARED)}
    return tuple(sorted(point for point in found if point.rpartition(".")[0] not in left_out))
