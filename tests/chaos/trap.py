"""Failpoints, wrapped around the service's side effects from outside: in a process that a test started.

What is armed stands in a file that whoever drives the test rewrites; each order is carried out once, by the first of
the processes it is meant for that comes by, and noted in another file before it is.
"""

import asyncio
import fcntl
import functools
import inspect
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.chaos.sites import (
    AFTER,
    BEFORE,
    CALLS,
    EXCHANGES,
    INSIDE,
    PUBLICATIONS,
    STORES,
    carriers,
    databases,
    site,
    stores,
)

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import NoAnswer, Unreachable
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.redis_link.link import RedisAway, RedisLink
from comfy_api_service.storage.base import StorageUnavailable
from comfy_api_service.storage.tree import Tree

ORDERS: Final = "orders.json"
FIRED: Final = "fired"
SLOW_SECONDS: Final = 2.0

FAULTS: Final[dict[str, Callable[[str], Exception]]] = {
    "db": lambda _: Unavailable("The database cannot be written to now."),
    "comfyui": lambda when: (
        Unreachable("The backend cannot be reached.") if when == BEFORE else NoAnswer("No answer came.")
    ),
    "store": lambda _: StorageUnavailable("The store cannot be reached."),
    "signal": lambda _: ConnectionError("the carrier of signals is gone"),
    "redis": lambda _: RedisAway(),
}
"""What each kind of side effect raises when its other side is gone."""


class Trap:
    """Looks up whether a point is armed, and does what was ordered."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._orders = folder / ORDERS
        self._fired = folder / FIRED
        self._read_at: tuple[int, int] = (0, 0)
        self._armed: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def _due(self, point: str) -> str | None:
        """The order for this point, if it was not carried out yet; noted as if it were."""
        with self._lock:
            status = self._orders.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp != self._read_at:
                self._read_at = stamp
                done = set(self._fired.read_text().split())
                orders = json.loads(self._orders.read_text())
                self._armed = {
                    one["point"]: (one["id"], one["action"])
                    for one in orders
                    if one["id"] not in done and self._name.startswith(one["who"])
                }
            order = self._armed.pop(point, None)
            return order[1] if order is not None and self._first(order[0]) else None

    def _first(self, order: str) -> bool:
        """Note an order as carried out, unless another process did."""
        with self._fired.open("a+") as noted:
            fcntl.flock(noted, fcntl.LOCK_EX)
            noted.seek(0)
            if order in noted.read().split():
                return False
            noted.write(f"{order}\n")
        return True

    def _act(self, point: str, action: str) -> float:
        """Seconds to wait, after what else was ordered."""
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "raise":
            kind, _, rest = point.partition(".")
            raise FAULTS[kind](rest.rpartition(".")[2])
        return SLOW_SECONDS if action == "slow" else 0.0

    def pass_by(self, point: str) -> None:
        """On a thread that may wait."""
        action = self._due(point)
        if action is not None:
            time.sleep(self._act(point, action))

    async def come_by(self, point: str) -> None:
        """On the loop."""
        action = self._due(point)
        if action is not None:
            await asyncio.sleep(self._act(point, action))


def install(folder: Path, name: str) -> None:
    """Wrap every side effect; `folder` has the orders, `name` is what they call this process."""
    trap = Trap(folder, name)
    for database in databases():
        database.write = _transaction(trap, database.write)
    for store in stores():
        for change in STORES:
            setattr(store, change, _wrapped(trap, getattr(store, change), f"store.{change}"))
    Tree.publish = _wrapped(trap, Tree.publish, "store.publish")  # type: ignore[method-assign]
    for carrier in carriers():
        for publication in PUBLICATIONS:
            setattr(
                carrier, publication, _wrapped(trap, getattr(carrier, publication), f"signal.{publication}")
            )
    for kind, owner, names in (("comfyui", ComfyClient, CALLS), ("redis", RedisLink, EXCHANGES)):
        for call in names:
            setattr(owner, call, _wrapped(trap, getattr(owner, call), f"{kind}.{call}"))


def _transaction(trap: Trap, write: Any) -> Any:
    async def wrapper(self: Any, function: Any, **options: Any) -> Any:
        name = site(function)

        async def inside(tx: Any) -> Any:
            result = await function(tx)
            trap.pass_by(f"db.{name}.{INSIDE}")
            return result

        await trap.come_by(f"db.{name}.{BEFORE}")
        result = await write(self, inside, **options)
        await trap.come_by(f"db.{name}.{AFTER}")
        return result

    return wrapper


def _wrapped(trap: Trap, function: Any, name: str) -> Any:
    """As the function is: a coroutine function, a context manager to be entered asynchronously, or plain."""
    before, after = f"{name}.{BEFORE}", f"{name}.{AFTER}"
    if inspect.isasyncgenfunction(getattr(function, "__wrapped__", None)):

        @asynccontextmanager
        async def entered(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            await trap.come_by(before)
            async with function(*args, **kwargs) as found:
                yield found
            await trap.come_by(after)

        return entered
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            await trap.come_by(before)
            result = await function(*args, **kwargs)
            await trap.come_by(after)
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        trap.pass_by(before)
        result = function(*args, **kwargs)
        trap.pass_by(after)
        return result

    return called
