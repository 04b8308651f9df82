"""The requests of docs/examples/comfy-api.http, sent one after the other, as an editor sends them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Client, connected
from tests.support.people import AUTH, person
from tests.support.stack import online, running, until

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.simulator import Simulator

pytestmark = pytest.mark.sqlite

FILE = Path(__file__).parents[3] / "docs/examples/comfy-api.http"
REFUSED = {
    "register": 403,  # as long as nobody opened it
    "refresh": 401,  # the token of the file is none
    "login": 401,  # the account that is made here has no password
    "logout": 409,  # of a key
    "get_artifact": 403,  # no signature
    "get_preview": 404,  # nothing runs any more
    "cancel_job": 409,  # it has ended
    "replay_delivery": 404,  # none was tried yet
    "delete_job": 409,  # likewise, as long as nobody says `purge`
}
"""What an operation may answer instead of doing it; the others have to do it."""


@dataclass(frozen=True, slots=True)
class Sent:
    name: str
    method: str
    address: str
    headers: dict[str, str]
    body: bytes


def requests(variables: dict[str, str]) -> Iterator[Sent]:
    """Those of the file, each with what the variables are when its turn comes."""
    text = FILE.read_text(encoding="utf-8")
    head, *blocks = text.split("\n### ")
    for name, value in re.findall(r"^@(\w+) = (.*)$", head, re.MULTILINE):
        variables.setdefault(name, value)
    for block in blocks:
        filled = re.sub(r"\{\{(\w+)\}\}", lambda found: variables[found[1]], block)
        top, _, body = filled.partition("\n\n")
        _, name, line, *headers = top.splitlines()
        method, address = line.split(" ")
        yield Sent(
            name.removeprefix("# @name "),
            method,
            address,
            dict(header.split(": ", 1) for header in headers),
            with_files(body),
        )


def with_files(body: str) -> bytes:
    """Lines end as multipart wants it, and `< ./name` is the file."""
    if not body.startswith("--"):
        return body.encode()
    lines = body.rstrip().splitlines()
    return b"\r\n".join(
        (FILE.parent / line[2:]).read_bytes() if line.startswith("< ") else line.encode() for line in lines
    )


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> Any:
    async with running(tmp_path, sim.url, **AUTH) as service:
        await online(service)
        yield service


async def test_each_example_is_answered_as_it_should_be(service: Service) -> None:
    operator = await person(service, role=Role.ADMIN, scopes=tuple(Scope))
    variables = {"key": operator.key, "url": "http://service.test"}
    answers: dict[str, int] = {}
    async with connected(service.app) as client:
        for sent in requests(variables):
            answer = await client.request(sent.method, sent.address, headers=sent.headers, content=sent.body)
            answers[sent.name] = answer.status_code
            assert answer.status_code < 300 or answer.status_code == REFUSED.get(sent.name), (
                f"{sent.method} {sent.address}: {answer.status_code} {answer.text[:300]}"
            )
            keep(variables, sent, answer)
            if sent.method == "POST" and "/jobs" in answer.headers.get("location", ""):
                await until(partial(has_ended, client, variables))
    assert len(answers) > 50


async def has_ended(client: Client, variables: dict[str, str]) -> bool:
    told = await client.get(f"/api/v1/jobs/{variables['job_id']}", headers={"X-API-Key": variables["key"]})
    return told.json()["finished_at"] is not None


def keep(variables: dict[str, str], sent: Sent, answer: Any) -> None:
    """As the other collection does by itself: what a POST made has the ids of what follows."""
    if sent.method == "POST" and answer.is_success and "json" in answer.headers.get("content-type", ""):
        told = answer.json()
        if "api_key" in told:
            told["key_id"] = told["id"]
        if "/backends" in sent.address:
            told["backend_id"] = told["name"]
        variables.update(
            (name, told[name]) for name in variables.keys() & told.keys() if name.endswith("_id")
        )
