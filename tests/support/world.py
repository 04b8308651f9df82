"""A service whose results go to a bucket, with all that outlives it: data folder, store and backend."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.checker import check
from tests.support.files import files_below
from tests.support.s3 import S3Server, s3_settings
from tests.support.stack import online, running

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator
from comfy_api_service.storage.s3 import Bucket


class World:
    def __init__(self, folder: Path, store: S3Server, sim: Simulator) -> None:
        self.folder = folder / "data"
        self.store = store
        self.sim = sim
        self.bucket: Bucket = store.bucket("results")

    @asynccontextmanager
    async def service(self, **settings: Any) -> AsyncIterator[Service]:
        async with running(self.folder, self.sim.url, **s3_settings(self.bucket), **settings) as service:
            await online(service)
            yield service

    def parked(self) -> list[str]:
        """Names of the files that wait."""
        return sorted(path.name for path in files_below(self.folder / "parked" / "jobs"))

    def kept(self) -> list[str]:
        return self.store.files(self.bucket)

    async def lose_history(self) -> None:
        """The backend restarts, and knows nothing of what it made."""
        await self.sim.faults.die()
        await self.sim.faults.restart()

    def check(self, *jobs: str) -> None:
        check(self.folder, jobs, artifacts=self.store.folder(self.bucket))
