"""Is it alive, can it take work, and which of its parts answer. Never slower than a second."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum

from comfy_api_service.db.base import Database
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import ServiceError
from comfy_api_service.services.pool import Pool
from comfy_api_service.signals.base import Signals
from comfy_api_service.storage.base import Storage, StorageError

LIMIT_SECONDS = 0.8
REMEMBERED_SECONDS = 5.0
"""A store is asked at most this often: its check writes."""


class PartStatus(StrEnum):
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class HealthReport:
    healthy: bool
    comfyui: PartStatus
    redis: PartStatus
    database: PartStatus
    storage: PartStatus
    at: float


class Health:
    def __init__(
        self,
        db: Database,
        storage: Storage,
        pool: Pool,
        signals: Signals,
        clock: Clock,
        *,
        database_embedded: bool,
        storage_embedded: bool,
        redis_embedded: bool,
    ) -> None:
        self._db = db
        self._storage = storage
        self._pool = pool
        self._signals = signals
        self._clock = clock
        self._database_up = PartStatus.EMBEDDED if database_embedded else PartStatus.CONNECTED
        self._storage_up = PartStatus.EMBEDDED if storage_embedded else PartStatus.CONNECTED
        self._redis_up = PartStatus.EMBEDDED if redis_embedded else PartStatus.CONNECTED
        self._storage_checked = -REMEMBERED_SECONDS
        self._storage_answers = False
        self._checking: asyncio.Task[bool] | None = None

    async def report(self) -> HealthReport:
        database, storage = await asyncio.gather(
            _within(self._database_answers()), _within(self._storage_check())
        )
        online = any(backend.state is BackendState.ONLINE for backend in self._pool.view.backends)
        redis = self._signals.connected
        return HealthReport(
            healthy=online and database and storage and redis,
            comfyui=PartStatus.CONNECTED if online else PartStatus.DISCONNECTED,
            redis=self._redis_up if redis else PartStatus.DISCONNECTED,
            database=self._database_up if database else PartStatus.DISCONNECTED,
            storage=self._storage_up if storage else PartStatus.DISCONNECTED,
            at=self._clock.now(),
        )

    async def ready(self) -> tuple[str, ...]:
        """Why the service cannot take work now; empty if it can. Backends may be away: jobs wait for them;
        so may Redis: everything goes on without it.
        """
        report = await self.report()
        reasons = []
        if report.database is PartStatus.DISCONNECTED:
            reasons.append("The database does not answer.")
        if report.storage is PartStatus.DISCONNECTED:
            reasons.append("The storage does not answer.")
        return tuple(reasons)

    @property
    def any_backend(self) -> bool:
        """Whether a backend could take work now."""
        return self._pool.view.online > 0

    async def _database_answers(self) -> bool:
        try:
            await self._db.read(lambda tx: tx.one("SELECT 1"))
        except ServiceError:
            return False
        return True

    async def _storage_check(self) -> bool:
        if self._clock.monotonic() - self._storage_checked < REMEMBERED_SECONDS:
            return self._storage_answers
        if self._checking is None:
            self._checking = asyncio.create_task(self._ask_storage())
            self._checking.add_done_callback(self._checked)
        return await asyncio.shield(self._checking)

    async def _ask_storage(self) -> bool:
        try:
            await self._storage.check()
        except StorageError:
            return False
        return True

    def _checked(self, task: "asyncio.Task[bool]") -> None:
        self._checking = None
        self._storage_checked = self._clock.monotonic()
        self._storage_answers = not task.cancelled() and task.exception() is None and task.result()


async def _within(answer: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            return await answer
    except TimeoutError:
        return False
