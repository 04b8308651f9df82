"""The engine's tests run on either database; some of them over a bucket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.s3 import S3Server
from tests.support.stack import FAST
from tests.support.world import World

from comfy_api_service.simulator import Simulator


@pytest.fixture(autouse=True)
def _on_either_database(dialect: str) -> None:
    """Every test of the engine runs on both."""


@pytest.fixture
async def world(tmp_path: Path, own_s3: S3Server) -> AsyncIterator[World]:
    async with Simulator(FAST) as sim:
        yield World(tmp_path, own_s3, sim)
