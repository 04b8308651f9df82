"""Operators: who may, what each act does and leaves in the audit log, and what billing gets."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from tests.support.api import SMALL, Client, connected
from tests.support.stack import online, running, until

from comfy_api_service.api.app import api_routes
from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import accounts
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.errors import Conflict
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.domain.times import utc_day
from comfy_api_service.simulator import Simulator

ABSENT = "acc_0123456789ABCDEFGHJKMNPQRS"
ADMIN = [route for route in api_routes() if route.path.startswith("/admin/")]


async def person(service: Service, name: str, *scopes: Scope, role: Role = Role.USER) -> tuple[str, str]:
    """An account of the tier `pro` and its key."""
    made = await service.services.users.create(
        SHELL, email=f"{name}@example.com", username=name, password=None, tier="pro", role=role
    )
    _, text = await service.services.keys.create(
        made.id, SHELL, name="first", scopes=scopes or (Scope.READ, Scope.WRITE)
    )
    return made.id, text


def by(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


class Operator:
    """An administrator at a service that drives the simulator."""

    def __init__(self, service: Service, http: Client, own_id: str) -> None:
        self.service, self.http, self.id = service, http, own_id

    async def user(self, name: str, **given: Any) -> dict[str, Any]:
        body = {"email": f"{name}@example.com", "username": name, **given}
        response = await self.http.post("/admin/users", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def key(self, user_id: str, **given: Any) -> dict[str, Any]:
        body = {"user_id": user_id, "name": "program", **given}
        response = await self.http.post("/admin/api-keys", json=body)
        assert response.status_code == 201, response.text
        made: dict[str, Any] = response.json()
        return made

    async def status(self, key: str) -> int:
        """What a key is answered with."""
        return (await self.http.get("/api/v1/auth/me", headers=by(key))).status_code

    async def answers(self, key: str, status: int) -> bool:
        return await self.status(key) == status

    async def pages(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        """All of a list, two entries a page."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            response = await self.http.get(path, params={"limit": "2", **query, **cursor})
            assert response.status_code == 200, response.text
            page = response.json()
            assert len(page[name]) <= 2
            found += page[name]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def audit(self, **query: Any) -> list[dict[str, Any]]:
        return await self.pages("/admin/audit", "entries", **query)


@asynccontextmanager
async def operating(tmp_path: Path, url: str, **settings: Any) -> AsyncIterator[Operator]:
    async with (
        running(
            tmp_path, url, auth_enabled=True, secret_key="4b0f6a1d9c3e5a7788d2e1f0c9b8a7d6", **settings
        ) as service,
        connected(service.app) as http,
    ):
        await online(service)
        own_id, key = await person(service, "root", *Scope, role=Role.ADMIN)
        http.headers["X-API-Key"] = key
        yield Operator(service, http, own_id)


@pytest.fixture
async def op(tmp_path: Path, sim: Simulator) -> AsyncIterator[Operator]:
    async with operating(tmp_path, sim.url) as op:
        yield op


# --- who may ---------------------------------------------------------------------------------------------


def filled(route: APIRoute) -> str:
    return route.path.format(user_id=ABSENT, key_id="4fK9s2LmQx7B", name="comfyui-1")


async def test_only_administrators_with_the_scope_may(tmp_path: Path, sim: Simulator) -> None:
    async with operating(tmp_path, sim.url, rate_limit_enabled=False) as op:
        await _only_administrators(op)


async def _only_administrators(op: Operator) -> None:
    _, plain = await person(op.service, "ada")
    narrow = (await op.key(op.id, scopes=["read", "write"]))["api_key"]
    fallen_id, fallen = await person(op.service, "eve", *Scope, role=Role.ADMIN)
    assert (await op.http.patch(f"/admin/users/{fallen_id}", json={"role": "user"})).status_code == 200
    assert len(ADMIN) == 17
    for route in ADMIN:
        for method in route.methods or ():
            for prefix in ("", "/api/v1"):
                for key, expected in (
                    (plain, 403),
                    (narrow, 403),
                    (fallen, 403),
                    ("nonsense", 401),
                    ("", 401),
                ):
                    response = await op.http.request(method, prefix + filled(route), headers=by(key))
                    assert response.status_code == expected, (method, route.path, key)
                    code = {403: "FORBIDDEN", 401: "UNAUTHORIZED"}[expected]
                    assert response.json()["error"]["code"] == code
    assert (await op.http.get("/admin/users", headers={"X-API-Key": ""})).status_code == 401


async def test_both_prefixes_answer_alike(op: Operator) -> None:
    query = {"from": "2026-01-01", "to": "2026-01-31"}
    for route in ADMIN:
        for method in route.methods or ():
            if method == "DELETE" and "backends" in route.path:
                continue
            short, long = [
                await op.http.request(method, prefix + filled(route), params=query)
                for prefix in ("", "/api/v1")
            ]
            assert (short.status_code, _body(short)) == (long.status_code, _body(long)), route.path
            assert short.status_code != 401
    assert (await op.http.get("/api/v1/admin/nothing")).status_code == 404
    assert (await op.http.put("/api/v1/admin/users")).headers["allow"] == "GET, HEAD, POST"


def _body(response: httpx2.Response) -> Any:
    if response.headers.get("content-type") != "application/json":
        return response.text
    found = response.json()
    for name in ("request_id", "timestamp"):
        found.get("error", {}).pop(name, None)
    return found


# --- people ----------------------------------------------------------------------------------------------


async def test_an_account_is_made_changed_and_ended(op: Operator) -> None:
    made = await op.user("Ada", tier="basic", overrides={"images_per_day": 500, "running": None})
    assert (made["username"], made["tier"], made["role"]) == ("ada", "basic", "user")
    assert made["overrides"] == {"images_per_day": 500}
    assert (made["limits"]["images_per_day"], made["limits"]["running"]) == (500, 2)
    path = f"/admin/users/{made['user_id']}"
    assert (await op.http.get(path)).json() == made
    changed = await op.http.patch(
        path,
        json={"tier": "pro", "name": "Ada L.", "overrides": {"images_per_day": None, "retention": "60d"}},
    )
    assert changed.json() == (await op.http.get(path)).json()
    assert (changed.json()["name"], changed.json()["overrides"]) == ("Ada L.", {"retention": "60d"})
    assert changed.json()["limits"]["images_per_day"] == 1000
    assert changed.json()["limits"]["retention"] == 60 * 86_400

    key = (await op.key(made["user_id"]))["api_key"]
    assert await op.status(key) == 200
    assert (await op.http.patch(path, json={"disabled": True})).json()["disabled_at"]
    assert await op.status(key) == 401
    assert (await op.http.patch(path, json={"disabled": False})).json()["disabled_at"] is None
    await until(lambda: op.answers(key, 200))
    for _ in range(2):
        assert (await op.http.delete(path)).status_code == 204
    assert (await op.http.get(path)).json()["disabled_at"]
    assert (await op.http.patch(path, json={"disabled": False})).status_code == 200
    assert await op.status(key) == 401, "its keys were revoked for good"
    actions = [entry["action"] for entry in await op.audit(about=made["user_id"])]
    assert actions == [
        "user.change", "user.delete", "user.change", "user.change", "key.create", "user.change", "user.create"
    ]  # fmt: skip


async def test_another_password_or_being_disabled_logs_out(op: Operator) -> None:
    made = await op.user("ada", password="correct horse battery")
    path = f"/admin/users/{made['user_id']}"

    async def token(password: str) -> str:
        response = await op.http.post("/api/v1/auth/login", json={"username": "ada", "password": password})
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    first = await token("correct horse battery")
    assert await op.status(first) == 200
    assert (await op.http.patch(path, json={"password": "another horse battery"})).status_code == 200
    assert await op.status(first) == 401
    second = await token("another horse battery")
    assert (await op.http.delete(path)).status_code == 204
    assert await op.status(second) == 401
    data = [entry["data"] for entry in await op.audit(about=made["user_id"], action="user.change")]
    assert data == [{"password": True}]
    assert "horse" not in str(await op.audit())


async def test_what_cannot_be_is_refused(op: Operator) -> None:
    await op.user("ada")
    for change, field in (
        ({"tier": "gold"}, "tier"),
        ({"overrides": {"running": -1}}, "overrides.running"),
        ({"overrides": {"speed": 1}}, "overrides.speed"),
        ({"email": "nobody"}, "email"),
        ({"username": "x y"}, "username"),
        ({"role": "king"}, "role"),
        ({"password": "short"}, "password"),
        ({"name": "x"}, "name"),
    ):
        body = {"email": "b@example.com", "username": "bob", **change}
        response = await op.http.post("/admin/users", json=body)
        assert response.status_code == 422, change
        assert response.json()["error"]["details"]["errors"][0]["field"] == field
        assert "short" not in response.text
    taken = await op.http.post("/admin/users", json={"email": "new@example.com", "username": "ADA"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "CONFLICT")
    response = await op.http.patch(f"/admin/users/{op.id}", json={"name": "a\x00b"})
    assert response.status_code == 422
    for method in ("GET", "PATCH", "DELETE"):
        content: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        assert (await op.http.request(method, f"/admin/users/{ABSENT}", **content)).status_code == 404
    assert (await op.http.delete("/admin/users/acc_local")).status_code == 409


async def test_lists_are_paged_and_searched(op: Operator) -> None:
    made = [await op.user(name) for name in ("ada", "bob_1", "bobby", "carl")]
    everybody = await op.pages("/admin/users", "users")
    assert [one["username"] for one in everybody if one["username"]] == [
        "root",
        *(u["username"] for u in made),
    ]
    for text, found in (("BOB", ["bob_1", "bobby"]), ("_", ["bob_1"]), ("carl@", ["carl"]), ("%", [])):
        assert [u["username"] for u in await op.pages("/admin/users", "users", search=text)] == found
    ids = [(await op.key(made[n % 2]["user_id"]))["id"] for n in range(5)]
    keys = await op.pages("/admin/api-keys", "keys")
    assert {one["id"] for one in keys} > set(ids)
    own = await op.pages("/admin/api-keys", "keys", user_id=made[0]["user_id"])
    assert {one["id"] for one in own} == {ids[0], ids[2], ids[4]}
    assert {one["user_id"] for one in own} == {made[0]["user_id"]}
    users_cursor = (await op.http.get("/admin/users?limit=1")).json()["next_cursor"]
    for path in ("/admin/api-keys", "/admin/audit", "/admin/jobs"):
        assert (await op.http.get(path, params={"cursor": users_cursor})).status_code == 422


async def test_the_last_administrator_stays(op: Operator) -> None:
    path = f"/admin/users/{op.id}"
    for change in ({"disabled": True}, {"role": "user"}):
        assert (await op.http.patch(path, json=change)).status_code == 409
    assert (await op.http.delete(path)).status_code == 409
    assert await op.status(op.http.headers["X-API-Key"]) == 200
    assert "user.delete" not in {entry["action"] for entry in await op.audit()}


async def test_of_administrators_who_end_each_other_at_once_one_stays(op: Operator) -> None:
    users = op.service.services.users
    others = [(await person(op.service, f"eve{n}", *Scope, role=Role.ADMIN))[0] for n in range(7)]
    ends = [users.remove(one, SHELL) for one in (op.id, *others)]
    outcomes = await asyncio.gather(*ends, return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [Conflict]
    assert (await op.service.db.read(accounts.administrators)) == 1


# --- keys ------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_revoked_at_once(op: Operator) -> None:
    user = await op.user("ada")
    made = await op.key(user["user_id"], expires_at="2100-01-01T00:00:00Z")
    text = made.pop("api_key")
    assert (made["scopes"], made["expires_at"]) == (["read", "write"], "2100-01-01T00:00:00.000Z")
    (listed,) = await op.pages("/admin/api-keys", "keys", user_id=user["user_id"])
    assert listed == made
    assert await op.status(text) == 200
    assert (await op.http.delete(f"/admin/api-keys/{made['id']}")).status_code == 204
    assert await op.status(text) == 401
    for gone in (made["id"], "000000000000", "x"):
        assert (await op.http.delete(f"/admin/api-keys/{gone}")).status_code == 404
    entries = await op.audit(about=user["user_id"])
    assert [(e["action"], e["actor"], e["data"].get("key")) for e in entries[:2]] == [
        ("key.revoke", op.id, made["id"]),
        ("key.create", op.id, made["id"]),
    ]
    assert all(entry["request_id"] and entry["address"] for entry in entries)
    assert text not in str(entries)
    for body, status in (
        ({"user_id": user["user_id"], "name": "x", "scopes": ["admin"]}, 403),
        ({"user_id": user["user_id"], "name": "x", "expires_at": "2000-01-01"}, 422),
        ({"user_id": ABSENT, "name": "x"}, 404),
    ):
        assert (await op.http.post("/admin/api-keys", json=body)).status_code == status


# --- the whole -------------------------------------------------------------------------------------------


async def done(op: Operator, key: str, batch_size: int = 1) -> str:
    """A job of a key's account, at its end."""
    response = await op.http.post("/api/v1/jobs", json={**SMALL, "batch_size": batch_size}, headers=by(key))
    assert response.status_code == 202, response.text
    job_id = str(response.json()["job_id"])

    async def ended() -> bool:
        found = await op.http.get(f"/api/v1/jobs/{job_id}", headers=by(key))
        return bool(found.json()["status"] == "succeeded")

    await until(ended)
    return job_id


async def test_figures_jobs_and_use_of_all(op: Operator) -> None:
    ada, adas = await person(op.service, "ada")
    bob, bobs = await person(op.service, "bob")
    jobs = [(await done(op, adas, 2), ada), (await done(op, bobs), bob), (await done(op, adas), ada)]
    assert (await op.http.patch(f"/admin/users/{ada}", json={"name": "=HYPERLINK(1)"})).status_code == 200

    stats = (await op.http.get("/admin/stats")).json()
    assert stats["users"] == {"by_tier": {"pro": 3}, "administrators": 1, "disabled": 0}
    assert stats["keys"] == 3
    assert stats["jobs"]["queued"] == stats["jobs"]["running"] == 0
    assert stats["jobs"]["oldest_wait"] is None
    assert stats["backends"] == {"online": 1, "degraded": 0, "draining": 0, "offline": 0}
    assert stats["usage"]["today"]["images"] == stats["usage"]["last_30_days"]["images"] == 4

    listed = await op.pages("/admin/jobs", "jobs")
    assert [(one["job_id"], one["user_id"]) for one in listed] == jobs[::-1]
    own = await op.pages("/admin/jobs", "jobs", user_id=ada)
    assert [one["job_id"] for one in own] == [jobs[2][0], jobs[0][0]]
    assert await op.pages("/admin/jobs", "jobs", status="failed") == []
    assert len(await op.pages("/admin/jobs", "jobs", status=["failed", "succeeded"])) == 3

    lines = await exported(op)
    assert [(line["user_id"], line["name"], line["images"]) for line in lines] == sorted(
        [(ada, "'=HYPERLINK(1)", "3"), (bob, "bob", "1")]
    )
    ledger = await op.service.db.read(
        lambda tx: tx.one("SELECT sum(charged) AS images, sum(gpu_seconds) AS seconds FROM ledger")
    )
    assert ledger is not None
    assert sum(int(line["images"]) for line in lines) == ledger["images"] == 4
    assert sum(float(line["gpu_seconds"]) for line in lines) == pytest.approx(float(ledger["seconds"]))


async def exported(op: Operator) -> list[dict[str, str]]:
    today = utc_day(op.service.services.clock.now())
    response = await op.http.get("/admin/usage.csv", params={"from": today, "to": today})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == f'attachment; filename="usage_{today}_{today}.csv"'
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


async def test_a_long_export_is_whole(op: Operator) -> None:
    days = [utc_day(86_400.0 * (20_000 + n)) for n in range(1_200)]
    rows = [{"account": op.id, "day": day, "images": n} for n, day in enumerate(days)]
    await op.service.db.write(
        lambda tx: tx.many(
            "INSERT INTO usage_days (account_id, day, charged) VALUES (:account, :day, :images)", rows
        )
    )
    response = await op.http.get("/admin/usage.csv", params={"from": days[0], "to": days[-1]})
    lines = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert [(line["day"], int(line["images"])) for line in lines] == list(
        zip(days, range(1_200), strict=True)
    )
    for query, field in (
        ({"from": days[1], "to": days[0]}, "to"),
        ({"from": "2026-02-30", "to": "2026-03-01"}, "from"),
        ({"from": "2026-01-01", "to": "20260131"}, "to"),
        ({"from": "2026-01-01"}, "to"),
    ):
        refused = await op.http.get("/admin/usage.csv", params=query)
        assert refused.status_code == 422
        assert refused.json()["error"]["details"]["errors"][0]["field"] == field


async def test_tiers_are_those_of_the_file(tmp_path: Path, sim: Simulator) -> None:
    file = tmp_path / "tiers.toml"
    file.write_text('[gold]\nimages_per_day = "none"\nrunning = 7\n')
    async with operating(tmp_path, sim.url, tiers_file=file) as op:
        tiers = {one["name"]: one["limits"] for one in (await op.http.get("/admin/tiers")).json()["tiers"]}
        assert set(tiers) == {"free", "basic", "pro", "enterprise", "gold"}
        assert (tiers["gold"]["images_per_day"], tiers["gold"]["running"]) == (None, 7)
        assert (await op.user("ada", tier="gold"))["limits"]["running"] == 7


# --- the pool --------------------------------------------------------------------------------------------


async def test_servers_are_added_drained_and_removed(op: Operator) -> None:
    async with Simulator() as second:
        url = second.url.replace("http://", "http://user:hush@")
        added = await op.http.post("/admin/backends", json={"url": f"{url}/"})
        assert added.status_code == 201, added.text
        name = added.json()["name"]
        assert (added.json()["manual"], "hush" in added.text) == (True, False)

        async def of(name: str) -> dict[str, Any]:
            listed = (await op.http.get("/admin/backends")).json()["backends"]
            return next((one for one in listed if one["name"] == name), {})

        async def is_online() -> bool:
            return bool((await of(name))["state"] == "online")

        await until(is_online)
        drained = await op.http.patch(f"/admin/backends/{name}", json={"draining": True})
        assert drained.json()["draining"] is True
        assert (await of(name))["draining"] is True
        resumed = await op.http.patch(f"/admin/backends/{name}", json={"draining": False})
        assert resumed.json()["draining"] is False
        assert (await op.http.delete(f"/admin/backends/{name}")).status_code == 204
        assert await of(name) == {}
        path = f"/admin/backends/{name}"
        assert (await op.http.patch(path, json={"draining": True})).status_code == 404
        assert (await op.http.delete(path)).status_code == 404
        entries = [entry for entry in await op.audit() if entry["action"].startswith("backend.")]
        assert [entry["action"] for entry in entries] == [
            "backend.remove", "backend.resume", "backend.drain", "backend.add"
        ]  # fmt: skip
        assert {entry["actor"] for entry in entries} == {op.id}
        assert {entry["data"]["name"] for entry in entries} == {name}
        assert "hush" not in str(entries)
    for url in ("gpu3:8188", "ftp://gpu3", "http://gpu3/?a=b", "http://gpu3/#x", ""):
        assert (await op.http.post("/admin/backends", json={"url": url})).status_code == 422


async def test_every_act_is_in_the_audit_log(op: Operator) -> None:
    """Whatever changes something leaves an entry with who, what and from where."""
    user = await op.user("ada")
    key = await op.key(user["user_id"])
    backend = (await op.http.post("/admin/backends", json={"url": "http://127.0.0.1:9"})).json()["name"]
    places = {"user_id": user["user_id"], "key_id": key["id"], "name": backend}
    bodies = {
        "/admin/users": {"email": "b@example.com", "username": "bob"},
        "/admin/users/{user_id}": {"tier": "pro"},
        "/admin/api-keys": {"user_id": user["user_id"], "name": "x"},
        "/admin/backends": {"url": "http://127.0.0.1:10"},
        "/admin/backends/{name}": {"draining": True},
    }
    acts = [(r.path, m) for r in ADMIN for m in r.methods or () if m not in ("GET", "HEAD")]
    acts.sort(key=lambda act: act[1] == "DELETE")
    acts.sort(key=lambda act: act == ("/admin/users/{user_id}", "DELETE"))
    assert len(acts) == 8
    for path, method in acts:
        before = (await op.audit())[0]["id"]
        content: dict[str, Any] = {} if method == "DELETE" else {"json": bodies[path]}
        response = await op.http.request(method, path.format(**places), **content)
        assert response.status_code in (200, 201, 204), (path, method, response.text)
        (entry,) = [entry for entry in await op.audit() if entry["id"] > before]
        assert (entry["actor"], entry["request_id"]) == (op.id, response.headers["x-request-id"])
        assert entry["address"]
        assert entry["target"]
