"""The corpora of graphs through the door: what is hostile is refused by its code, with nothing queued, and what is
legitimate is taken.
"""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.api import Client, connected
from tests.support.people import AUTH, Person, person
from tests.support.pictures import png
from tests.support.rows import add_stocked
from tests.support.stack import running
from tests.unit.domain.graph_corpus import graph_of, hostile, legitimate, stocked

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.checking.file_names import FILE_INPUTS, is_reference

JOBS = "/api/v1/jobs"
LARGE = 3_000_000
"""Bytes of a body: the graphs' own bounds are tested here, not that of the door."""
pytestmark = pytest.mark.sqlite


@pytest.fixture(params=["core", "open"])
def policy(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def stood(tmp_path: Path, policy: str) -> AsyncIterator[Service]:
    """Nobody drives its backend, which has all that the corpora name: what is queued stays so."""
    given: dict[str, Any] = {"node_policy": policy, "max_body_size": LARGE, "rate_limit_enabled": False}
    async with running(tmp_path, "http://127.0.0.1:9", **AUTH, **given) as service:
        await add_stocked(service.db, stocked("0.8.0"))
        await service.pool.refresh()
        yield service


@pytest.fixture
async def caller(stood: Service) -> AsyncIterator[tuple[Client, Person]]:
    who = await person(stood)
    async with connected(stood.app) as client:
        client.headers.update(who.headers)
        yield client, who


async def posted(client: Client, graph: Any) -> tuple[int, str | None]:
    """The status and the code. What JSON cannot hold is written as Python writes it."""
    body = json.dumps({"workflow": graph}).encode("utf-8", "surrogatepass")
    answer = await client.post(JOBS, content=body, headers={"Content-Type": "application/json"})
    found = orjson.loads(answer.content)
    return answer.status_code, found["error"]["code"] if "error" in found else None


async def test_every_hostile_graph_is_refused_by_its_code_and_nothing_is_queued(
    caller: tuple[Client, Person], policy: str
) -> None:
    client, _ = caller
    wrong, refused = {}, 0
    for name, line in hostile().items():
        if line.get("policy", "core") != policy:
            continue
        try:
            status, code = await posted(client, graph_of(line))
        except (RecursionError, ValueError):  # what this test cannot write as JSON
            continue
        refused += 400 <= status < 500
        at_the_door = (status, code) in {
            (400, "BAD_REQUEST"), (413, "PAYLOAD_TOO_LARGE"), (422, "VALIDATION_ERROR"),
        }  # fmt: skip
        if code != line["code"] and not at_the_door:
            wrong[name] = (status, code)
    assert wrong == {}
    assert refused >= (40 if policy == "open" else 300)
    assert (await client.get(JOBS)).json()["jobs"] == []


async def test_every_legitimate_graph_is_taken(caller: tuple[Client, Person], policy: str) -> None:
    client, _ = caller
    upload = (await client.post("/api/v1/upload", files={"file": png()})).json()["upload_id"]
    wrong = {}
    lines = [line for line in legitimate().values() if line.get("policy", "core") == policy]
    for line in lines:
        graph = with_own(graph_of(line), upload)
        if not {node["class_type"] for node in graph.values()} <= stocked("0.8.0").classes.keys():
            continue
        status, code = await posted(client, graph)
        if status != 202:
            wrong[line["name"]] = (status, code)
    assert wrong == {}
    assert len(lines) > (3 if policy == "open" else 80)


def with_own(graph: Mapping[str, Any], upload: str) -> dict[str, Any]:
    """With an upload of the caller in place of each file that a caller might name."""
    return {
        node_id: {
            **node,
            "inputs": {
                name: upload
                if (node["class_type"], name) in FILE_INPUTS
                and isinstance(value, str)
                and is_reference(value)
                else value
                for name, value in node.get("inputs", {}).items()
            },
        }
        for node_id, node in graph.items()
    }
