"""Who calls, by what, and until when: keys, sessions, tickets, scopes."""

import asyncio
import base64
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.api import SMALL, Client, connected, serving
from tests.support.people import AUTH, PASSWORD, Person, person
from tests.support.stack import online, running, until
from tests.support.tokens import HEADER, key_of, signed_with, token_of, written
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import accounts
from comfy_api_service.db.base import Reader
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope, TokenKind, make_api_key, make_token
from comfy_api_service.domain.errors import Conflict, Refused, ValidationFailed
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.principal import SHELL, Credential, Kind
from comfy_api_service.domain.tiers import TIERS
from comfy_api_service.domain.times import iso
from comfy_api_service.services import access
from comfy_api_service.services.users import Changes, apply_tiers
from comfy_api_service.simulator import Simulator


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url, **AUTH, registration_enabled=True) as service:
        await online(service)
        yield service


@pytest.fixture
async def ada(service: Service) -> Person:
    return await person(service, password=PASSWORD)


async def logged_in(client: Client, who: Person) -> dict[str, Any]:
    answer = await client.post(
        "/api/v1/auth/login", json={"username": who.user.username, "password": PASSWORD}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def test_a_key_is_good_in_either_header_and_only_as_it_is(client: Client, ada: Person) -> None:
    other = make_api_key()
    wrong = ada.key[:-1] + ("0" if ada.key[-1] != "0" else "1")
    answers = {}
    for name, headers in {
        "key": {"X-API-Key": ada.key},
        "bearer": bearer(ada.key),
        "lower": {"Authorization": f"bearer {ada.key}"},
        "nothing": {},
        "unknown": {"X-API-Key": other.text},
        "checksum": {"X-API-Key": wrong},
        "case": {"X-API-Key": ada.key.swapcase()},
        "padding": {"X-API-Key": f"{ada.key}="},
        "basic": {"Authorization": "Basic YTpi"},
        "token": bearer("a.b.c"),
        "bytes": {"X-API-Key": "\xff\xfe"},
    }.items():
        raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        answer = await client.get("/api/v1/auth/me", headers=raw)
        answers[name] = answer.status_code
        if answer.status_code == 401:
            error = answer.json()["error"]
            assert (error["code"], error["message"]) == ("UNAUTHORIZED", "A valid credential is needed.")
            assert error["details"] == {}
            assert answer.headers["www-authenticate"] == "Bearer"
    assert {name for name, status in answers.items() if status == 200} == {"key", "bearer", "lower"}
    assert set(answers.values()) == {200, 401}


@pytest.mark.sqlite
async def test_a_token_is_good_only_as_it_was_made(tmp_path: Path, sim: Simulator) -> None:
    """Whatever is wrong with it, the answer is one and the same."""
    secret = "8c1f6d20a7b94e53b0d2f7c6e15a3b8d"
    async with running(tmp_path, sim.url, **AUTH, secret_key=secret) as own, connected(own.app) as client:
        who = await person(own, password=PASSWORD)
        good = (await logged_in(client, who))["access_token"]
        head, body, signature = good.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        sign = signed_with(key_of(secret.encode()))

        def forged(header: object = HEADER, sign: Callable[[bytes], bytes] = sign, **changed: Any) -> str:
            return token_of(header, written({**claims, **changed}), sign)

        bad = {
            "none": forged({**HEADER, "alg": "none"}, lambda _: b""),
            "none, signed": forged({**HEADER, "alg": "none"}),
            "other algorithm": forged(
                {**HEADER, "alg": "HS512"}, lambda it: hmac.digest(key_of(secret.encode()), it, "sha512")
            ),
            "public key": forged({**HEADER, "alg": "RS256"}),
            "kid": forged({**HEADER, "kid": "../../dev/null"}),
            "empty key": forged(sign=signed_with(b"")),
            "the secret itself": forged(sign=signed_with(secret.encode())),
            "expired": forged(iat=claims["iat"] - 7200, exp=claims["iat"] - 3600),
            "other audience": forged(aud="another-service"),
            "other issuer": forged(iss="another-service"),
            "other account": forged(sub="acc_local"),
            "other session": forged(sid="ses_00000000000000000000000000"),
            "no signature": f"{head}.{body}.",
            "no dot": f"{head}.{body}",
            "head alone": head,
            "truncated": good[:-1],
            "longer": good + "A",
            "twice": f"{good}.{good}",
            "padded": f"{head}.{body}.{signature}=",
        }
        answers = {
            name: await client.get("/api/v1/auth/me", headers=bearer(text)) for name, text in bad.items()
        }
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(bad, 401)
        told = [answer.json()["error"] for answer in answers.values()]
        assert {(one["code"], one["message"], str(one["details"])) for one in told} == {
            ("UNAUTHORIZED", "A valid credential is needed.", "{}")
        }
        for same in (good, forged()):
            assert (await client.get("/api/v1/auth/me", headers=bearer(same))).status_code == 200


async def test_of_a_key_only_its_digest_is_kept(service: Service, ada: Person) -> None:
    secret = ada.key[len("cui_sk_") + 12 :]
    found = ""
    for table, columns in (
        ("api_keys", "id || name || digest || scopes"),
        ("audit", "action || coalesce(target, '') || data"),
    ):
        query = f"SELECT {columns} AS all_of_it FROM {table}"
        for row in await service.db.read(lambda tx, query=query: tx.all(query)):  # type: ignore[misc]
            found += row["all_of_it"]
    assert ada.key_id in found
    assert secret not in found


async def test_a_key_made_by_its_owner_is_shown_once_works_and_is_revoked(
    client: Client, ada: Person
) -> None:
    client.headers.update(ada.headers)
    made = (await client.post("/api/v1/auth/keys", json={"name": "mine", "scopes": ["read"]})).json()
    assert made["api_key"].startswith("cui_sk_" + made["id"])
    own = {"X-API-Key": made["api_key"]}
    assert (await client.get("/api/v1/jobs", headers=own)).status_code == 200
    refused = await client.post("/api/v1/jobs", json=SMALL, headers=own)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
    listed = (await client.get("/api/v1/auth/keys")).json()["keys"]
    assert [key["id"] for key in listed] == [made["id"], ada.key_id]
    assert "api_key" not in listed[0]
    assert (await client.delete(f"/api/v1/auth/keys/{made['id']}")).status_code == 204
    assert (await client.get("/api/v1/jobs", headers=own)).status_code == 401
    assert (await client.delete(f"/api/v1/auth/keys/{made['id']}")).status_code == 404


async def test_a_key_gets_no_scope_that_its_maker_does_not_have(client: Client, service: Service) -> None:
    writer = await person(service, scopes=(Scope.WRITE,))
    client.headers.update(writer.headers)
    for scopes in (["read"], ["admin"], ["write", "admin"]):
        answer = await client.post("/api/v1/auth/keys", json={"name": "more", "scopes": scopes})
        assert answer.status_code == 403
    assert (
        await client.post("/api/v1/auth/keys", json={"name": "as", "scopes": ["write"]})
    ).status_code == 201


async def test_a_key_ends_when_it_expires(client: Client, service: Service, ada: Person) -> None:
    key, text = await service.services.keys.create(
        ada.user.id, SHELL, name="short", scopes=(Scope.READ,), expires_at=service.services.clock.now() + 1.5
    )
    assert (await client.get("/api/v1/jobs", headers={"X-API-Key": text})).status_code == 200

    async def gone() -> bool:
        return (await client.get("/api/v1/jobs", headers={"X-API-Key": text})).status_code == 401

    await until(gone)
    assert key.expires_at is not None
    assert service.services.clock.now() >= key.expires_at


async def test_who_is_disabled_is_out_and_comes_back(client: Client, service: Service, ada: Person) -> None:
    tokens = await logged_in(client, ada)
    for disabled, status in ((True, 401), (False, 200)):
        await service.services.users.change(ada.user.id, Changes(disabled=disabled), SHELL)
        assert (await client.get("/api/v1/jobs", headers=ada.headers)).status_code == status
        assert (await client.get("/api/v1/jobs", headers=bearer(tokens["access_token"]))).status_code == 401
        login = await client.post(
            "/api/v1/auth/login", json={"username": ada.user.username, "password": PASSWORD}
        )
        assert login.status_code == status


async def test_what_another_process_revokes_is_noticed_within_seconds(
    service: Service, client: Client, ada: Person
) -> None:
    """By looking: nothing tells this process of it."""
    client.headers.update(ada.headers)
    assert (await client.get("/api/v1/jobs")).status_code == 200
    values = {"now": service.services.clock.now(), "id": ada.key_id}
    await service.db.write(lambda tx: tx.run("UPDATE api_keys SET revoked_at = :now WHERE id = :id", values))

    async def out() -> bool:
        return (await client.get("/api/v1/jobs")).status_code == 401

    async with asyncio.timeout(5.0):
        await until(out)


async def closed_with(socket: ClientConnection) -> int:
    """The code with which the service closes it, whatever it tells before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0


async def test_open_streams_end_with_their_credential(service: Service, sim: Simulator, ada: Person) -> None:
    sim.faults.hang()
    async with serving(service.app) as url, httpx2.AsyncClient(base_url=url, headers=ada.headers) as http:
        job = (await http.post("/api/v1/jobs", json=SMALL)).json()
        async with (
            connect(job["websocket_url"], additional_headers=ada.headers) as one,
            connect(url.replace("http", "ws") + "/ws/jobs", additional_headers=ada.headers) as every,
            http.stream("GET", job["events_url"]) as events,
        ):
            lines = events.aiter_lines()
            await anext(lines)
            values = {"now": service.services.clock.now(), "id": ada.key_id}
            await service.db.write(
                lambda tx: tx.run("UPDATE api_keys SET revoked_at = :now WHERE id = :id", values)
            )
            async with asyncio.timeout(5.0):
                assert [await closed_with(socket) for socket in (one, every)] == [4401, 4401]
                async for _ in lines:
                    pass


async def test_login_refresh_logout(client: Client, ada: Person) -> None:
    tokens = await logged_in(client, ada)
    own = bearer(tokens["access_token"])
    me = (await client.get("/api/v1/auth/me", headers=own)).json()
    assert (me["user_id"], me["email"], me["tier"]) == (ada.user.id, ada.user.email, "enterprise")
    following = await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert following.status_code == 200
    newer = bearer(following.json()["access_token"])
    assert (await client.post("/api/v1/auth/logout", headers=newer)).status_code == 204
    for headers in (own, newer):
        assert (await client.get("/api/v1/auth/me", headers=headers)).status_code == 401
    dead = await client.post(
        "/api/v1/auth/refresh", json={"refresh_token": following.json()["refresh_token"]}
    )
    assert dead.status_code == 401
    assert (await client.post("/api/v1/auth/logout", headers=ada.headers)).status_code == 409


async def test_a_refresh_token_that_comes_again_ends_the_session(client: Client, ada: Person) -> None:
    first = await logged_in(client, ada)
    second = (
        await client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    ).json()
    own = bearer(second["access_token"])
    assert (await client.get("/api/v1/auth/me", headers=own)).status_code == 200
    stolen = await client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert stolen.status_code == 401
    assert (await client.get("/api/v1/auth/me", headers=own)).status_code == 401
    after = await client.post("/api/v1/auth/refresh", json={"refresh_token": second["refresh_token"]})
    assert after.status_code == 401


async def test_one_answer_for_every_login_that_fails(client: Client, service: Service, ada: Person) -> None:
    keyed = await person(service)
    bodies = []
    for name, password in (
        (ada.user.username, "wrong password"),
        ("nobody", PASSWORD),
        (keyed.user.username, PASSWORD),
        (ada.user.id, "x"),
    ):
        answer = await client.post("/api/v1/auth/login", json={"username": name, "password": password})
        assert answer.status_code == 401
        error = answer.json()["error"]
        bodies.append({key: error[key] for key in ("code", "message", "details")})
    assert all(body == bodies[0] for body in bodies)


async def test_who_registers_is_free_and_no_name_is_given_twice(client: Client) -> None:
    body = {"email": "Eve@Example.com", "username": "Eve", "password": PASSWORD}
    made = await client.post("/api/v1/auth/register", json=body)
    assert made.status_code == 201
    assert {made.json()[name] for name in ("email", "username", "tier", "role")} == {
        "eve@example.com",
        "eve",
        "free",
        "user",
    }
    for other in (
        {"email": "eve@example.com", "username": "other"},
        {"email": "o@example.com", "username": "EVE"},
    ):
        assert (await client.post("/api/v1/auth/register", json={**body, **other})).status_code == 409
    for fault in ({"email": "no"}, {"username": "a b"}, {"password": "short"}, {"role": "admin"}):
        assert (await client.post("/api/v1/auth/register", json={**body, **fault})).status_code == 422
    assert (
        await client.post("/api/v1/auth/login", json={"username": "EVE@example.com", "password": PASSWORD})
    ).status_code == 200


async def test_registration_is_closed_unless_it_was_opened(tmp_path: Path, sim: Simulator) -> None:
    async with running(tmp_path / "closed", sim.url, **AUTH) as service, connected(service.app) as client:
        body = {"email": "eve@example.com", "username": "eve", "password": PASSWORD}
        assert (await client.post("/api/v1/auth/register", json=body)).status_code == 403


async def test_a_ticket_opens_one_stream_once(service: Service, ada: Person) -> None:
    async with serving(service.app) as url, httpx2.AsyncClient(base_url=url) as http:
        address = url.replace("http", "ws") + "/ws/jobs"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address):
                pass
        assert refused.value.response.status_code == 401
        made = await http.post("/api/v1/auth/ticket", headers=ada.headers)
        ticket = made.json()["ticket"]
        async with connect(f"{address}?ticket={ticket}"):
            pass
        with pytest.raises(InvalidStatus):
            async with connect(f"{address}?ticket={ticket}"):
                pass
        job = (await http.post("/api/v1/jobs", json=SMALL, headers=ada.headers)).json()
        assert (await http.get(job["events_url"])).status_code == 401
        ticket = (await http.post("/api/v1/auth/ticket", headers=ada.headers)).json()["ticket"]
        assert (await http.get(job["events_url"], params={"ticket": ticket})).status_code == 200
        assert (await http.get(job["events_url"], params={"ticket": ticket})).status_code == 401
        assert (await http.get(job["events_url"], params={"ticket": ada.key})).status_code == 401
        assert (await http.get(job["status_url"], params={"ticket": ticket})).status_code == 401


async def test_attempts_are_limited_by_name_and_address(
    client: Client, service: Service, ada: Person
) -> None:
    body = {"username": ada.user.username, "password": "wrong password"}
    answers = [await client.post("/api/v1/auth/login", json=body) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    figures = service.services.metrics.registry
    assert figures.get_sample_value("comfyui_logins_total", {"outcome": "refused"}) == 10
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_when_a_key_was_last_used_is_written_later(
    service: Service, client: Client, ada: Person
) -> None:
    assert (await client.get("/api/v1/jobs", headers=ada.headers)).status_code == 200
    await service.services.access.note_uses()
    (key,) = (await client.get("/api/v1/auth/keys", headers=ada.headers)).json()["keys"]
    assert key["last_used_at"] is not None


async def test_without_authentication_what_is_sent_is_ignored(tmp_path: Path, sim: Simulator) -> None:
    async with running(tmp_path / "open", sim.url) as service, connected(service.app) as client:
        for headers in ({}, {"X-API-Key": "nonsense"}, {"Authorization": "Bearer x"}):
            assert (await client.get("/api/v1/jobs", headers=headers)).status_code == 200
        assert (await client.post("/api/v1/auth/ticket")).status_code == 409


async def test_the_audit_log_tells_who_did_what_from_where(
    service: Service, client: Client, ada: Person
) -> None:
    await logged_in(client, ada)
    await client.post(
        "/api/v1/auth/login", json={"username": ada.user.username, "password": "wrong password"}
    )
    made = (await client.post("/api/v1/auth/keys", json={"name": "k"}, headers=ada.headers)).json()
    await client.delete(f"/api/v1/auth/keys/{made['id']}", headers=ada.headers)
    entries = (await service.services.overview.audit(before=None, limit=100, about=ada.user.id)).items
    told = [(entry.action, entry.actor_id, entry.target, entry.address) for entry in reversed(entries)]
    assert told == [
        ("user.create", None, ada.user.id, "shell"),
        ("key.create", None, ada.user.id, "shell"),
        ("login", ada.user.id, ada.user.id, "127.0.0.1"),
        ("login.refused", None, ada.user.id, "127.0.0.1"),
        ("key.create", ada.user.id, ada.user.id, "127.0.0.1"),
        ("key.revoke", ada.user.id, ada.user.id, "127.0.0.1"),
    ]
    assert all(entry.request_id for entry in entries if entry.address != "shell")
    assert PASSWORD not in str(entries)
    assert made["api_key"] not in str(entries)


async def test_the_last_administrator_stays_one(service: Service) -> None:
    admin = await person(service, role=Role.ADMIN)
    for changes in (Changes(disabled=True), Changes(role=Role.USER)):
        with pytest.raises(Conflict):
            await service.services.users.change(admin.user.id, changes, SHELL)
    await person(service, role=Role.ADMIN)
    await service.services.users.change(admin.user.id, Changes(role=Role.USER), SHELL)


async def test_a_key_that_ends_makes_none_that_outlives_it(
    client: Client, service: Service, ada: Person
) -> None:
    end = service.services.clock.now() + 3600
    _, text = await service.services.keys.create(
        ada.user.id, SHELL, name="short", scopes=(Scope.READ, Scope.WRITE), expires_at=end
    )
    client.headers["X-API-Key"] = text
    made = (await client.post("/api/v1/auth/keys", json={"name": "child"})).json()
    assert made["expires_at"] == iso(end)
    later = await client.post("/api/v1/auth/keys", json={"name": "child", "expires_at": iso(end + 60)})
    assert later.status_code == 422


async def test_nobody_gets_a_key_of_the_local_account_or_of_a_disabled_one(
    service: Service, ada: Person
) -> None:
    await service.services.users.change(ada.user.id, Changes(disabled=True), SHELL)
    for account_id in (LOCAL_ACCOUNT, ada.user.id):
        with pytest.raises(Conflict):
            await service.services.keys.create(account_id, SHELL, name="k", scopes=(Scope.READ,))


async def test_a_login_does_not_survive_a_change_of_the_password_it_was_made_with(
    client: Client, service: Service, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed while the one that was sent is being verified."""
    passwords = service.services.logins._passwords
    verify = passwords.verify

    async def slow(password: str, stored: str | None) -> bool:
        good = await verify(password, stored)
        await service.services.users.change(ada.user.id, Changes(password="another password"), SHELL)
        return good

    monkeypatch.setattr(passwords, "verify", slow)
    body = {"username": ada.user.username, "password": PASSWORD}
    assert (await client.post("/api/v1/auth/login", json=body)).status_code == 401
    entries = (await service.services.overview.audit(before=None, limit=1, about=ada.user.id)).items
    assert entries[0].action == "login.refused"


async def test_an_account_whose_tier_is_gone_can_still_be_disabled(service: Service, ada: Person) -> None:
    values = {"id": ada.user.id}
    await service.db.write(lambda tx: tx.run("UPDATE accounts SET tier = 'gone' WHERE id = :id", values))
    changed = await service.services.users.change(ada.user.id, Changes(disabled=True), SHELL)
    assert changed.disabled_at is not None
    with pytest.raises(ValidationFailed):
        await service.services.users.change(ada.user.id, Changes(overrides={"running": 1}), SHELL)


async def test_tiers_are_applied_to_each_account_as_it_is_then(service: Service, ada: Person) -> None:
    """What an operator changes while a process starts stays changed."""
    tiers = {**TIERS, "enterprise": replace(TIERS["enterprise"], weight=3.0, running=7)}
    read = accounts.lanes_of_people

    async def before(tx: Reader) -> Any:
        return await read(tx)

    found = await service.db.read(before)
    await service.services.users.change(ada.user.id, Changes(disabled=True, name="other"), SHELL)
    with pytest.MonkeyPatch.context() as patched:

        async def as_it_was(_tx: Reader) -> Any:
            return found

        patched.setattr(accounts, "lanes_of_people", as_it_was)
        assert await apply_tiers(service.db, tiers) == 1
    user = await service.services.users.get(ada.user.id)
    assert (user.name, user.disabled_at is None) == ("other", False)
    row = await service.db.read(
        lambda tx: tx.one("SELECT cap, weight FROM lanes WHERE account_id = :id", {"id": ada.user.id})
    )
    assert row is not None
    assert (row["cap"], row["weight"]) == (7, 3.0)


async def test_invented_credentials_drive_out_nobodys_and_cost_no_write(
    service: Service, client: Client, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_ABSENT", 3)
    known = service.services.access
    assert (await client.get("/api/v1/jobs", headers=ada.headers)).status_code == 200
    for _ in range(10):
        wrong = {"X-API-Key": make_api_key().text}
        assert (await client.get("/api/v1/jobs", headers=wrong)).status_code == 401
    assert Credential(Kind.KEY, ada.key_id) in known._entries
    assert len(known._absent) <= 3

    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was written")

    monkeypatch.setattr(service.db, "write", refuse)
    with pytest.raises(Refused):
        await known.of_ticket(make_token(TokenKind.TICKET))
