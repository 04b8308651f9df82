"""Each operation of the OpenAPI document, and each WebSocket, by everybody who might call it.

A new operation without a line here fails: whoever adds one says what is whose.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from tests.support.api import SMALL, _document, connected, serving
from tests.support.people import AUTH, PASSWORD, Person, person
from tests.support.pictures import png
from tests.support.stack import online, running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.services.users import Changes
from comfy_api_service.simulator import Simulator

ABSENT: Final = {
    "job_id": "job_00000000000000000000000000",
    "batch_id": "batch_00000000000000000000000000",
    "key_id": "000000000000",
    "upload_id": "upl_00000000000000000000000000",
    "workflow_id": "wfl_00000000000000000000000000",
    "webhook_id": "whk_00000000000000000000000000",
    "delivery_id": "msg_00000000000000000000000000",
}


@dataclass(frozen=True, slots=True)
class Call:
    """How an operation is called; `own` are the statuses that the owner may get."""

    own: tuple[int, ...] = (200,)
    json: Any = None
    scope: Scope | None = Scope.READ
    """That the credential must have; None: any good one will do."""
    open_to_all: bool = False
    query: Mapping[str, str] | None = None
    files: Mapping[str, Any] | None = None


PICTURE: Final = png()
GRAPH: Final = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
WRITE: Final = Scope.WRITE
OPEN: Final = Call(open_to_all=True, own=(200, 503))
CALLS: Final[Mapping[str, Call]] = {
    "get_root": OPEN,
    "ping": OPEN,
    "get_health": OPEN,
    "get_liveness": OPEN,
    "get_readiness": OPEN,
    "get_metrics": OPEN,
    "get_artifact": Call((403,), open_to_all=True),
    "register": Call((403,), {"email": "a@b.org", "username": "abc", "password": PASSWORD}, open_to_all=True),
    "login": Call((401,), {"username": "nobody", "password": PASSWORD}, open_to_all=True),
    "refresh": Call((401,), {"refresh_token": "x"}, open_to_all=True),
    "logout": Call((409,), scope=None),
    "create_ticket": Call((201,)),
    "get_me": Call(),
    "list_keys": Call(),
    "create_key": Call((201,), {"name": "k", "scopes": ["write"]}, WRITE),
    "revoke_key": Call((204,), scope=WRITE),
    "get_usage": Call(),
    "submit_job": Call((202,), SMALL, WRITE),
    "list_jobs": Call(),
    "get_job": Call(),
    "delete_job": Call((200,), scope=WRITE, query={"purge": "true"}),
    "cancel_job": Call((409,), scope=WRITE),
    "retry_job": Call((202,), scope=WRITE),
    "get_job_result": Call(),
    "get_job_image": Call(),
    "stream_events": Call(),
    "get_preview": Call((404,)),
    "generate": Call((201,), SMALL, WRITE),
    "generate_batch": Call((201,), {"requests": [SMALL]}, WRITE),
    "get_batch": Call(),
    "get_generation": Call(),
    "get_generation_image": Call(),
    "upload": Call((201,), scope=WRITE, files={"file": ("a.png", PICTURE)}),
    "get_upload": Call(),
    "delete_upload": Call((204,), scope=WRITE),
    "list_workflows": Call(),
    "create_workflow": Call((201,), {"name": "w", "workflow": GRAPH}, WRITE),
    "inspect_workflow": Call((200,), {"workflow": GRAPH}, WRITE),
    "get_workflow": Call(),
    "replace_workflow": Call((200,), {"name": "w", "workflow": GRAPH}, WRITE),
    "delete_workflow": Call((204,), scope=WRITE),
    "list_workflow_versions": Call(),
    "get_workflow_version": Call(),
    "get_workflow_schema": Call(),
    "execute_workflow": Call((202,), {"inputs": {}}, WRITE),
    "list_webhooks": Call(),
    "create_webhook": Call((201,), {"url": "https://example.com/a"}, WRITE),
    "get_webhook": Call(),
    "change_webhook": Call((200,), {"events": ["job.failed"]}, WRITE),
    "delete_webhook": Call((204,), scope=WRITE),
    "rotate_webhook": Call(scope=WRITE),
    "test_webhook": Call((202,), scope=WRITE),
    "list_deliveries": Call(),
    "list_all_deliveries": Call(),
    "replay_delivery": Call((202,), scope=WRITE),
    "get_webhook_secret": Call(),
    "rotate_webhook_secret": Call((201,), scope=WRITE),
    "list_models": Call(),
    "list_models_short": Call(),
    **{
        f"admin_{what}": Call((403,), scope=Scope.ADMIN)
        for what in (
            "list_users",
            "create_user",
            "get_user",
            "change_user",
            "delete_user",
            "list_keys",
            "create_key",
            "revoke_key",
            "list_backends",
            "add_backend",
            "change_backend",
            "remove_backend",
            "get_stats",
            "list_tiers",
            "list_jobs",
            "list_audit",
            "export_usage",
            "publish_workflow",
            "unpublish_workflow",
        )
    },
}
"""What administrators may do is refused to everybody else whatever it is asked of; what it does, see `test_admin`."""


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    method: str
    path: str

    @property
    def call(self) -> Call:
        return CALLS[self.name]

    @property
    def owned(self) -> bool:
        return self.call.scope is not Scope.ADMIN and any(f"{{{name}}}" in self.path for name in ABSENT)


def operations() -> list[Operation]:
    return [
        Operation(operation["operationId"], method.upper(), path)
        for path, methods in _document()["paths"].items()
        for method, operation in methods.items()
    ]


OPERATIONS: Final = operations()


def test_every_operation_has_its_line() -> None:
    assert {operation.name for operation in OPERATIONS} == set(CALLS)


def test_the_document_says_of_each_whether_it_needs_a_credential() -> None:
    for path, methods in _document()["paths"].items():
        for method, operation in methods.items():
            needs = not CALLS[operation["operationId"]].open_to_all
            assert ("security" in operation) is needs, (method, path)
            if needs:
                assert {"401", "403", "429"} <= operation["responses"].keys()


@dataclass(frozen=True, slots=True)
class World:
    """A service with an account that has something, another one, and credentials that are no good."""

    service: Service
    owner: Person
    other: Person
    things: Mapping[str, str]
    bad: Mapping[str, Mapping[str, str]]
    scoped: Mapping[Scope, Mapping[str, str]]


async def ask(
    world: World, operation: Operation, headers: Mapping[str, str], things: Mapping[str, str]
) -> httpx2.Response:
    path = operation.path
    for name, value in {
        "key": "artifacts/x.png",
        "name": "comfyui-1",
        "user_id": things["key_id"],
        "version": "1",
        **things,
    }.items():
        path = path.replace(f"{{{name}}}", value)
    call = operation.call
    async with connected(world.service.app) as client:
        return await client.request(
            operation.method,
            path,
            json=call.json,
            files=call.files,
            headers=dict(headers),
            params=dict(call.query or {}),
        )


def told(answer: httpx2.Response) -> tuple[int, Any, dict[str, str]]:
    """All that a caller sees, but for what is of the request alone."""
    body = answer.json()["error"]
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("x-request-id", "date") and not name.startswith(("ratelimit", "x-ratelimit"))
    }
    return answer.status_code, {name: body[name] for name in ("code", "message", "details")}, headers


async def _world(service: Service) -> World:
    owner, other, disabled = [await person(service, password=None) for _ in range(3)]
    await service.services.users.change(disabled.user.id, Changes(disabled=True), SHELL)
    keys = service.services.keys
    revoked, text = await keys.create(owner.user.id, SHELL, name="r", scopes=tuple(Scope)[:2])
    await keys.revoke(owner.user.id, revoked.id, SHELL)
    expired, old = await keys.create(
        owner.user.id, SHELL, name="e", scopes=tuple(Scope)[:2], expires_at=service.services.clock.now() + 60
    )
    await service.db.write(
        lambda tx: tx.run("UPDATE api_keys SET expires_at = 1 WHERE id = :id", {"id": expired.id})
    )
    scoped = {}
    for scope in (Scope.READ, Scope.WRITE):
        _, key = await keys.create(owner.user.id, SHELL, name=scope, scopes=(scope,))
        scoped[scope] = {"X-API-Key": key}
    async with connected(service.app) as client:
        batch = await client.post("/api/v1/generate/batch", json={"requests": [SMALL]}, headers=owner.headers)
        body = batch.json()
        uploaded = await client.post("/api/v1/upload", files={"file": PICTURE}, headers=owner.headers)
        workflow = await client.post(
            "/api/v1/workflows", json={"name": "w", "workflow": GRAPH}, headers=owner.headers
        )
        webhook = await client.post(
            "/api/v1/webhooks", json={"url": "https://hooks.invalid/x"}, headers=owner.headers
        )
        webhook_id = webhook.json()["webhook_id"]
        tried = await client.post(f"/api/v1/webhooks/{webhook_id}/test", headers=owner.headers)
    things = {
        "webhook_id": webhook_id,
        "delivery_id": tried.json()["delivery_id"],
        "job_id": body["jobs"][0]["job_id"],
        "batch_id": body["batch_id"],
        "key_id": owner.key_id,
        "upload_id": uploaded.json()["upload_id"],
        "workflow_id": workflow.json()["workflow_id"],
    }
    bad = {
        "anonymous": {},
        "revoked": {"X-API-Key": text},
        "expired": {"X-API-Key": old},
        "deactivated": disabled.headers,
        "nonsense": {"Authorization": "Bearer cui_sk_nonsense"},
    }
    return World(service, owner, other, things, bad, scoped)


@pytest.fixture
async def world(tmp_path: Path, sim: Simulator) -> AsyncIterator[World]:
    async with running(tmp_path, sim.url, **AUTH, rate_limit_enabled=False) as service:
        await online(service)
        yield await _world(service)


async def test_who_has_no_good_credential_gets_one_answer_everywhere(world: World) -> None:
    answers = set()
    for operation in OPERATIONS:
        for name, headers in world.bad.items():
            answer = await ask(world, operation, headers, world.things)
            if operation.call.open_to_all:
                assert answer.status_code in operation.call.own, (operation.name, name)
            else:
                status, body, told_headers = told(answer)
                assert status == 401, (operation.name, name)
                answers.add((str(body), str(sorted(told_headers.items()))))
    assert len(answers) == 1


async def test_a_scope_that_is_absent_is_refused_whatever_is_asked_for(world: World) -> None:
    for operation in OPERATIONS:
        call = operation.call
        if call.open_to_all or call.scope is None:
            continue
        lacking = world.scoped[Scope.READ if call.scope is Scope.WRITE else Scope.WRITE]
        answers = [await ask(world, operation, lacking, things) for things in (world.things, ABSENT)]
        assert [answer.status_code for answer in answers] == [403, 403], operation.name
        assert told(answers[0]) == told(answers[1])


async def test_what_is_somebody_elses_cannot_be_told_from_what_is_not_there(world: World) -> None:
    for operation in (one for one in OPERATIONS if one.owned):
        foreign = await ask(world, operation, world.other.headers, world.things)
        absent = await ask(world, operation, world.other.headers, ABSENT)
        assert foreign.status_code == 404, operation.name
        assert told(foreign) == told(absent), operation.name


async def test_lists_show_ones_own_alone(world: World) -> None:
    async with connected(world.service.app) as client:
        for path, name, ident in (
            ("/api/v1/jobs", "jobs", "job_id"),
            ("/api/v1/auth/keys", "keys", "id"),
            ("/api/v1/workflows", "workflows", "workflow_id"),
            ("/api/v1/webhooks", "webhooks", "webhook_id"),
            ("/api/v1/webhooks/deliveries", "deliveries", "delivery_id"),
        ):
            mine = (await client.get(path, headers=world.owner.headers)).json()[name]
            theirs = (await client.get(path, headers=world.other.headers)).json()[name]
            own = {one[ident] for one in mine if not one.get("ready_made")}
            assert own
            assert own.isdisjoint({one[ident] for one in theirs})
        usage = (await client.get("/api/v1/usage", headers=world.other.headers)).json()
        assert (usage["days"], usage["waiting"], usage["running"]) == ([], 0, 0)


async def test_the_owner_may_do_all_of_it(world: World) -> None:
    last = {"delete_job", "delete_upload", "delete_workflow", "delete_webhook", "revoke_key"}
    for operation in sorted(OPERATIONS, key=lambda one: (one.name in last, one.name == "revoke_key")):
        answer = await ask(world, operation, world.owner.headers, world.things)
        assert answer.status_code in operation.call.own, (operation.name, answer.text[:200])


async def test_websockets_as_everything_else(world: World) -> None:
    async with serving(world.service.app) as url:
        base = url.replace("http", "ws") + "/ws/jobs"
        job = world.things["job_id"]
        for address in (base, f"{base}/{job}", f"{base}/{ABSENT['job_id']}"):
            for headers in (*world.bad.values(), world.scoped[Scope.WRITE]):
                with pytest.raises(InvalidStatus) as refused:
                    async with connect(address, additional_headers=dict(headers)):
                        pass
                wanted = 403 if headers is world.scoped[Scope.WRITE] else 401
                assert refused.value.response.status_code == wanted
        ends = []
        for job_id in (job, ABSENT["job_id"]):
            async with connect(f"{base}/{job_id}", additional_headers=world.other.headers) as socket:
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                ends.append((socket.close_code, socket.close_reason))
        assert ends == [(4404, "There is no such job.")] * 2
        async with connect(f"{base}/{job}", additional_headers=world.owner.headers) as socket:
            assert '"snapshot"' in str(await socket.recv())


async def test_an_administrator_without_the_scope_is_nobody_special(world: World) -> None:
    admin = await person(world.service, role=Role.ADMIN)
    whole = await person(world.service, role=Role.ADMIN, scopes=tuple(Scope))
    for operation in (one for one in OPERATIONS if one.call.scope is Scope.ADMIN):
        for who in (admin, world.owner):
            assert (await ask(world, operation, who.headers, ABSENT)).status_code == 403, operation.name
        if operation.method == "GET":
            assert (await ask(world, operation, whole.headers, ABSENT)).status_code in (200, 404, 422)
