"""Schemathesis with all its checks over the OpenAPI document, against a real server."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.support.api import in_thread, serving
from tests.support.schema import DIALECTS, bound, copied
from tests.support.stack import FAST, online, running

from comfy_api_service.api.app import openapi_text
from comfy_api_service.simulator import Simulator

EXAMPLES = 12
"""An operation; so many that the whole takes less than a minute."""


KNOWS = {"IDEMPOTENCY_KEY_REUSED", "MODEL_NOT_FOUND", "NODE_NOT_AVAILABLE"}


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[str]:
    """The service under test; whatever serves the API at an address can stand here."""
    async with Simulator(FAST) as sim, running(folder, sim.url) as service:
        await online(service)
        async with serving(service.app) as url:
            yield url


@pytest.fixture(scope="module", params=DIALECTS)
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with contextlib.ExitStack() as held:
        if request.param == "postgresql":
            url = held.enter_context(copied(request.getfixturevalue("postgres")))
            held.enter_context(bound(folder, url))
        yield held.enter_context(in_thread(lambda: stack(folder)))


pytestmark = pytest.mark.sqlite  # its own fixture sees to the other
schema = schemathesis.openapi.from_dict(json.loads(openapi_text("0.0.0")))


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_outside_the_document(case: schemathesis.Case[Any], address: str) -> None:
    response = case.call(base_url=address)
    unforeseeable = response.status_code == 422 and beyond_the_document(response.json()["error"])
    excluded: list[Any] = [positive_data_acceptance] if unforeseeable else []
    case.validate_response(response, excluded_checks=excluded)


def beyond_the_document(error: dict[str, Any]) -> bool:
    """Refused for what no schema can say: models there are, keys used before, cursors given, two names of one."""
    fields = {fault["field"] for fault in error["details"].get("errors", ())}
    return error["code"] in KNOWS or fields in ({"cursor"}, {"body"})
