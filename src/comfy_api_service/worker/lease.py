"""A worker's proof that it lives, and its watch over the others, on a thread and connections of its own.

However busy the worker's loop is, the proof goes out; however long the database is away, nobody is taken for dead.
Whatever else goes wrong here is logged and tried again; who cannot prove its life meanwhile does not post.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from comfy_api_service.db import workers
from comfy_api_service.db.base import Database
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.domain.leases import LIFE_SECONDS, POSTING_SECONDS, WATCH_SECONDS, Watch
from comfy_api_service.services.forever import forever

log = structlog.get_logger()

AGAIN_SECONDS: Final = 0.5
"""After a proof that the database did not take."""
LOOK_SECONDS: Final = 0.1
"""How often who may not post now looks whether it may again."""
STOP_SECONDS: Final = 15.0


class Lease(Protocol):
    """What lets a worker change anything on a backend."""

    async def proven(self) -> None:
        """Returns once the worker has proved its life lately; waits while it could not."""
        ...


class Alone:
    """The lease of a worker beside which no other can live."""

    async def proven(self) -> None:
        return


class SharedLease:
    """The lease of one worker among many."""

    def __init__(
        self,
        worker_id: str,
        open_database: Callable[[], Awaitable[Database]],
        *,
        on_dead: Callable[[str, int], None],
        on_replaced: Callable[[], None],
    ) -> None:
        """`open_database` is called on the thread's own loop. `on_dead` is told a worker and where its counter
        stood still, `on_replaced` that this one is taken for dead; both on the loop that `start` was called on.
        """
        self._worker_id = worker_id
        self._open_database = open_database
        self._on_dead = on_dead
        self._on_replaced = on_replaced
        self._proven_at = -POSTING_SECONDS
        """When the last proof that succeeded was begun."""
        self._replaced = False
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    async def start(self, entered_at: float) -> None:
        """Begin, right after the worker was entered, which was begun then (monotonic seconds). If it was begun
        before, that one ends first.
        """
        await self.stop()
        caller = asyncio.get_running_loop()
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        loop = runner.get_loop()  # here: whoever starts is told if there can be none
        stopping = asyncio.Event()

        def work() -> None:
            with runner:
                runner.run(self._live(caller, stopping))

        self._proven_at = entered_at
        self._replaced = False
        thread = threading.Thread(target=work, name="lease", daemon=True)
        thread.start()
        self._thread, self._stop = thread, lambda: loop.call_soon_threadsafe(stopping.set)

    async def stop(self) -> None:
        """The proofs end; the worker is not told to be gone."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._stop()
            await asyncio.to_thread(thread.join, STOP_SECONDS)

    @property
    def holds(self) -> bool:
        return not self._replaced and time.monotonic() - self._proven_at < POSTING_SECONDS

    async def proven(self) -> None:
        while not self.holds:  # noqa: ASYNC110 - another thread renews it
            await asyncio.sleep(LOOK_SECONDS)

    # --- on the thread -----------------------------------------------------------------------------------

    async def _live(self, caller: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        task = asyncio.create_task(self._hold(caller))
        try:
            await stopping.wait()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _hold(self, caller: asyncio.AbstractEventLoop) -> None:
        db = await self._opened()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(forever("proof of life", lambda: self._prove(db, caller)))
                group.create_task(forever("watch over workers", lambda: self._watch(db, caller)))
        finally:
            await db.close()

    async def _opened(self) -> Database:
        while True:
            try:
                return await self._open_database()
            except Exception:
                log.exception("background_work_failed", work="lease")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _prove(self, db: Database, caller: asyncio.AbstractEventLoop) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(POSTING_SECONDS):
                    alive = await db.write(lambda tx: workers.prove_life(tx, self._worker_id))
            except (ServiceError, TimeoutError):
                log.warning("lease_not_renewed", worker=self._worker_id)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if not alive:
                self._replaced = True
                caller.call_soon_threadsafe(self._on_replaced)
                await asyncio.Event().wait()  # until it is stopped
            self._proven_at = began
            await asyncio.sleep(max(began + LIFE_SECONDS - time.monotonic(), 0.0))

    async def _watch(self, db: Database, caller: asyncio.AbstractEventLoop) -> None:
        watch = Watch()
        while True:
            began = time.monotonic()
            try:
                counters = await db.read(workers.counters)
            except ServiceError:
                watch = Watch()
            else:
                watch = watch.read(counters, began=began, ended=time.monotonic())
                for worker, counter in watch.dead().items():
                    if worker != self._worker_id:
                        caller.call_soon_threadsafe(self._on_dead, worker, counter)
            await asyncio.sleep(WATCH_SECONDS)
