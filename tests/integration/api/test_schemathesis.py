"""Schemathesis with all its checks over the OpenAPI document, against a real server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from comfy_api_service.simulator import Simulator
from support.api import in_thread, serving
from support.stack import FAST, online, running

EXAMPLES = 12
"""An operation; so many that the whole takes less than a minute."""


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[str]:
    """The service under test; whatever serves the API at an address can stand here."""
    async with Simulator(FAST) as sim, running(folder, sim.url) as service:
        await online(service)
        async with serving(service.app) as url:
            yield url


@pytest.fixture(scope="module")
def schema_of_the_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with in_thread(lambda: stack(folder)) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


schema = schemathesis.pytest.from_fixture("schema_of_the_service")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_outside_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate()
