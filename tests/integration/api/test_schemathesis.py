"""Schemathesis with all its checks over the OpenAPI document, against a real server."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.support.processes import client, serve, simulator, until_online
from tests.support.schema import DIALECTS, copied

from comfy_api_service.api.app import openapi_text

EXAMPLES = 12
"""An operation; so many that the whole takes less than a minute."""


KNOWS = {"IDEMPOTENCY_KEY_REUSED", "MODEL_NOT_FOUND", "NODE_NOT_AVAILABLE"}


@pytest.fixture(scope="module", params=DIALECTS)
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service as a process of its own: Hypothesis minds whoever draws from `random` in its process."""
    folder = tmp_path_factory.mktemp("schemathesis")
    with contextlib.ExitStack() as held:
        environment = {}
        if request.param == "postgresql":
            environment["DATABASE_URL"] = held.enter_context(copied(request.getfixturevalue("postgres")))
        sim = held.enter_context(simulator(folder, "--seconds-per-step", "0.002", "--seconds-per-load", "0"))
        service = held.enter_context(serve(folder, sim.url, **environment))
        with client(service) as http:
            until_online(http)
        yield service.url


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
