"""Schemathesis with all its checks over the OpenAPI document, against a real server."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from tests.support.processes import client, serve, simulator, until_online
from tests.support.schema import DIALECTS, copied

from comfy_api_service.api.app import openapi_text

EXAMPLES = 12
"""An operation; so many that the whole takes less than a minute."""


KNOWS: Final = {
    "IDEMPOTENCY_KEY_REUSED",
    "MODEL_NOT_FOUND",
    "NODE_NOT_AVAILABLE",
    "NODE_NOT_ALLOWED",
    "INVALID_GRAPH",
    "INVALID_INPUT",
}
FORESEEN: Final = {
    "cursor",
    "body",
    "overrides",
    "expires_at",
    "url",
    "webhook_url",
    "from",
    "to",
    "tier",
    "email",
    "username",
    "inputs",
    "file",
    "outputs",
    "parameters",
}
"""Fields whose rules a schema cannot tell whole."""
READ_AS_AN_ID: Final = {"/api/v1/webhooks/secret", "/api/v1/webhooks/deliveries"}
"""With a method that these do not have, they ask for a webhook of that name, and there is none."""


@dataclass(frozen=True, slots=True)
class Door:
    """A service's address, and an administrator's key to it."""

    url: str
    key: str


@pytest.fixture(scope="module", params=DIALECTS)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The service as a process of its own: Hypothesis minds whoever draws from `random` in its process."""
    folder = tmp_path_factory.mktemp("schemathesis")
    with contextlib.ExitStack() as held:
        environment = {
            "AUTH_ENABLED": "true",
            "REGISTRATION_ENABLED": "true",
            "RATE_LIMIT_ENABLED": "false",
            "DATA_DIR": str(folder / "data"),
        }
        if request.param == "postgresql":
            environment["DATABASE_URL"] = held.enter_context(copied(request.getfixturevalue("postgres")))
        sim = held.enter_context(simulator(folder, "--seconds-per-step", "0.002", "--seconds-per-load", "0"))
        service = held.enter_context(serve(folder, sim.url, **environment))
        with client(service) as http:
            until_online(http)
        yield Door(service.url, administrator(folder, environment))


def administrator(folder: Path, environment: Mapping[str, str]) -> str:
    """A key with all scopes, as the shell makes it."""
    command = ["-m", "comfy_api_service", "admin", "create", "--email", "op@example.com", "--username", "op"]
    made = subprocess.run(
        [sys.executable, *command],
        check=True,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


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
def test_no_answer_outside_the_document(case: schemathesis.Case[Any], door: Door) -> None:
    response = case.call(base_url=door.url, headers={"X-API-Key": door.key})
    unforeseeable = response.status_code in (415, 422) and beyond_the_document(response.json()["error"])
    excluded: list[Any] = [positive_data_acceptance] if unforeseeable else []
    if case.path in READ_AS_AN_ID:
        excluded.append(unsupported_method)
    case.validate_response(response, excluded_checks=excluded)


def beyond_the_document(error: dict[str, Any]) -> bool:
    """Refused for what no schema can say: models there are, keys used before, cursors given, two names of one, tiers
    there are, times to come, what a graph or a file holds.
    """
    fields = {fault.get("field", "").partition(".")[0] for fault in error["details"].get("errors", ())}
    if error["code"] == "UNSUPPORTED_MEDIA_TYPE":
        return "picture" in error["message"]
    return error["code"] in KNOWS or (bool(fields) and fields <= FORESEEN)
