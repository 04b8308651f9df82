"""What operators do with ComfyUI servers while the service runs."""

from comfy_api_service.db import backends, workers
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.domain.backend import Backend, backend_id
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import NotFound


class Backends:
    def __init__(self, db: Database, clock: Clock, *, node_id: str) -> None:
        """`node_id`: the machine that loopback addresses are on."""
        self._db = db
        self._clock = clock
        self._node_id = node_id

    async def all(self) -> tuple[list[Backend], set[str]]:
        """All on the list, and the ids of those that a living worker drives."""

        async def read(tx: Reader) -> tuple[list[Backend], set[str]]:
            living = {worker.id for worker in await workers.living(tx)}
            listed = await backends.every(tx)
            return listed, {backend.id for backend in listed if backend.worker_id in living}

        return await self._db.read(read)

    async def add(self, url: str) -> Backend:
        """Put a server on the list for every worker that can reach it; `url` is checked already."""
        identity = backend_id(url, self._node_id)
        now = self._clock.now()

        async def write(tx: Tx) -> list[Backend]:
            await backends.enroll(tx, {identity: url}, node_id=self._node_id, now=now, manual=True)
            return await backends.every(tx)

        listed = await self._db.write(write)
        return next(backend for backend in listed if backend.id == identity)

    async def set_draining(self, name: str, draining: bool) -> Backend:
        """Whether it gets no more work; what it has ends there. Raises `NotFound`."""
        backend = await self._named(name)
        if not await self._db.write(lambda tx: backends.set_draining(tx, backend.id, draining)):
            raise NotFound("backend")
        return backend

    async def remove(self, name: str) -> Backend:
        """Take it off the list: what it has may end, then its worker lets go of it. Raises `NotFound`."""
        backend = await self._named(name)
        if not await self._db.write(lambda tx: backends.remove(tx, backend.id, self._clock.now())):
            raise NotFound("backend")
        return backend

    async def _named(self, name: str) -> Backend:
        for backend in await self._db.read(backends.every):
            if backend.name == name:
                return backend
        raise NotFound("backend")
