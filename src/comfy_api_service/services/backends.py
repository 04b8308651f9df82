"""What operators do with ComfyUI servers while the service runs; each act is in the audit log."""

from comfy_api_service.db import audit, backends, workers
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.domain.backend import Backend, backend_id
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import NotFound
from comfy_api_service.domain.principal import Actor
from comfy_api_service.domain.urls import without_password


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

    async def one(self, name: str) -> tuple[Backend, bool]:
        """With whether a living worker drives it. Raises `NotFound`."""
        listed, driven = await self.all()
        for backend in listed:
            if backend.name == name:
                return backend, backend.id in driven
        raise NotFound("backend")

    async def add(self, url: str, by: Actor) -> Backend:
        """Put a server on the list for every worker that can reach it; `url` is checked already."""
        identity = backend_id(url, self._node_id)
        now = self._clock.now()

        async def write(tx: Tx) -> Backend:
            await backends.enroll(tx, {identity: url}, node_id=self._node_id, now=now, manual=True)
            added = next(backend for backend in await backends.every(tx) if backend.id == identity)
            await audit.note(
                tx, by, "backend.add", now=now, target=identity, name=added.name, url=without_password(url)
            )
            return added

        return await self._db.write(write)

    async def set_draining(self, name: str, draining: bool, by: Actor) -> None:
        """Whether it gets no more work; what it has ends there. Raises `NotFound`."""
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            backend = await _named(tx, name)
            if not await backends.set_draining(tx, backend.id, draining):
                raise NotFound("backend")
            action = "backend.drain" if draining else "backend.resume"
            await audit.note(tx, by, action, now=now, target=backend.id, name=name)

        await self._db.write(write)

    async def remove(self, name: str, by: Actor) -> None:
        """Take it off the list: what it has may end, then its worker lets go of it. Raises `NotFound`."""
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            backend = await _named(tx, name)
            if not await backends.remove(tx, backend.id, now):
                raise NotFound("backend")
            await audit.note(tx, by, "backend.remove", now=now, target=backend.id, name=name)

        await self._db.write(write)


async def _named(tx: Reader, name: str) -> Backend:
    for backend in await backends.every(tx):
        if backend.name == name:
            return backend
    raise NotFound("backend")
