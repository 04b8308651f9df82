"""What stands before every operation: who calls and by which scheme, which names are known, what browsers may do."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.api import SMALL, Client, connected, serving
from tests.support.stack import online, running
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import comfy_api_service
from comfy_api_service.api.openapi import document
from comfy_api_service.bootstrap.api import Service
from comfy_api_service.simulator import Simulator

pytestmark = pytest.mark.sqlite

JOBS = "/api/v1/jobs"
PROXY = "10.0.0.1"
STRANGER = "203.0.113.9"
FORWARDED = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
}


class Heard:
    """The application, and what it found of each request."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.found: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)
        self.found.append((scope["comfy_client"], scope["comfy_scheme"]))


@asynccontextmanager
async def behind(app: Any, peer: str) -> AsyncIterator[Client]:
    """A caller whose connection comes from `peer`."""
    transport = httpx2.ASGITransport(app, client=(peer, 40_000))
    async with Client(transport=transport, base_url="http://service.test") as client:
        yield client


@pytest.fixture
async def guarded(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    settings: dict[str, Any] = {
        "trusted_proxies": ("10.0.0.0/8", "127.0.0.1"),
        "allowed_hosts": ("service.test", "*.studio.example"),
        "hsts_max_age": 3600,
    }
    async with running(tmp_path, sim.url, **settings) as service:
        await online(service)
        yield service


async def test_a_trusted_proxy_tells_who_calls_and_how(guarded: Service) -> None:
    heard = Heard(guarded.app)
    async with behind(heard, PROXY) as client:
        for answer in (
            await client.post(JOBS, json=SMALL, headers=FORWARDED),  # the way past the framework
            await client.get("/", headers=FORWARDED),
            await client.get(f"{JOBS}/absent/", headers=FORWARDED),
        ):
            assert answer.headers["strict-transport-security"] == "max-age=3600"
            assert "http://" not in answer.text
            assert "evil.example" not in answer.text
        submitted = (await client.post(JOBS, json=SMALL, headers=FORWARDED)).json()
        assert submitted["location"].startswith("https://service.test/")
        assert submitted["websocket_url"].startswith("wss://service.test/")
    assert heard.found == [("198.51.100.7", "https")] * 4


async def test_nobody_else_does(guarded: Service) -> None:
    heard = Heard(guarded.app)
    async with behind(heard, STRANGER) as client:
        submitted = await client.post(JOBS, json=SMALL, headers=FORWARDED)
        assert submitted.json()["location"].startswith("http://service.test/")
        for answer in (submitted, await client.get("/", headers=FORWARDED)):
            assert "strict-transport-security" not in answer.headers
            assert "https://" not in answer.text
    assert heard.found == [(STRANGER, "http")] * 2


async def test_by_default_not_even_this_machine_does(service: Service) -> None:
    heard = Heard(service.app)
    async with behind(heard, "127.0.0.1") as client:
        answer = await client.post(JOBS, json=SMALL, headers=FORWARDED)
        assert answer.json()["location"].startswith("http://service.test/")
        assert "strict-transport-security" not in answer.headers
    assert heard.found == [("127.0.0.1", "http")]


async def test_without_the_setting_browsers_are_told_nothing(tmp_path: Path, sim: Simulator) -> None:
    async with (
        running(tmp_path, sim.url, trusted_proxies=(PROXY,)) as service,
        behind(service.app, PROXY) as client,
    ):
        answer = await client.get("/", headers=FORWARDED)
        assert answer.json()["links"]["documentation"].startswith("https://")
        assert "strict-transport-security" not in answer.headers


async def test_over_websockets(guarded: Service) -> None:
    heard = Heard(guarded.app)
    async with serving(heard) as url:
        here: dict[str, Any] = {"host": "127.0.0.1", "port": int(url.rpartition(":")[2])}
        async with connect("ws://a.studio.example/ws/jobs", additional_headers=FORWARDED, **here):
            pass
        with pytest.raises(InvalidStatus) as denied:
            await connect("ws://evil.example/ws/jobs", additional_headers=FORWARDED, **here)
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
            await client.get("/ping", headers={"Host": "service.test"})
    response = denied.value.response
    assert response.status_code == 400
    assert b'"code":"BAD_REQUEST"' in (response.body or b"")
    assert response.headers["Strict-Transport-Security"] == "max-age=3600"
    assert sorted(heard.found) == [
        ("127.0.0.1", "http"),
        ("198.51.100.7", "https"),
        ("198.51.100.7", "https"),
    ]


async def test_a_host_that_is_not_known(guarded: Service) -> None:
    async with connected(guarded.app) as client:
        for host in ("evil.example", "service.test.evil.example", "studio.example", "127.0.0.1:8000"):
            for method, path in (
                ("GET", "/"),
                ("GET", "/health"),
                ("GET", "/docs"),
                ("POST", JOBS),
                ("GET", f"{JOBS}/x"),
                ("GET", "/nothing"),
                ("OPTIONS", JOBS),
            ):
                answer = await client.request(method, path, json=SMALL, headers={"Host": host})
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_REQUEST"), (
                    host,
                    path,
                )
                assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
                assert host not in answer.text
            for path in ("/health/live", "/health/ready", "/ping", "/ping/", "/metrics"):
                assert (await client.get(path, headers={"Host": host})).status_code == 200
        for host in ("service.test", "SERVICE.test:8443", "a.studio.example", "a.b.studio.example."):
            assert (await client.get("/", headers={"Host": host})).status_code == 200
        assert (await client.get(JOBS)).json()["jobs"] == []


async def test_any_host_without_the_setting(client: Client) -> None:
    for host in ("evil.example", "127.0.0.1:8000", ""):
        assert (await client.get("/", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("origins", [("*",), ("https://a.example",)])
async def test_a_browser_never_sends_credentials_of_its_own(
    tmp_path: Path, sim: Simulator, origins: tuple[str, ...]
) -> None:
    """Neither cookies nor HTTP authentication that a browser keeps: what a page of another origin sends, it knows."""
    settings: dict[str, Any] = {"cors_origins": origins, "metrics_token": "t0ken"}
    async with running(tmp_path, sim.url, **settings) as service, connected(service.app) as client:
        asks = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization, x-api-key, idempotency-key",
        }
        preflight = await client.options("/metrics", headers=asks)  # it carries no token: browsers send none
        assert preflight.status_code == 200, preflight.text
        origin = {"Origin": "https://a.example", "Cookie": "a=b"}
        for answer in (
            preflight,
            await client.get("/ping", headers=origin),
            await client.get("/metrics", headers=origin),
            await client.post(JOBS, json={}, headers=origin),
        ):
            assert answer.headers["access-control-allow-origin"] in ("*", "https://a.example")
            assert "access-control-allow-credentials" not in answer.headers
        exposed = (await client.get("/ping", headers=origin)).headers["access-control-expose-headers"]
        assert {"RateLimit", "RateLimit-Policy", "X-RateLimit-Reset", "Retry-After"} <= set(
            exposed.split(", ")
        )


async def test_no_operation_sets_or_reads_a_cookie(service: Service, client: Client) -> None:
    described = document(service.app.fastapi)
    asked = 0
    for path, operations in described["paths"].items():
        for method in operations:
            asked += 1
            answer = await client.request(
                method, re.sub(r"\{\w+\}", "x", path), json={}, headers={"Cookie": "session=x"}
            )
            assert "set-cookie" not in answer.headers, (method, path)
            parameters = operations[method].get("parameters", ())
            assert not [one for one in parameters if one["in"] == "cookie"], (method, path)
    assert asked > 20
    assert not _says(lambda text: re.search(r"set_cookie|\.cookies|[\"']cookie", text, re.IGNORECASE))


def _says(found: Callable[[str], Any]) -> list[str]:
    """The files of what answers callers whose text has it."""
    api = Path(comfy_api_service.__file__).parent / "api"
    return [file.name for file in api.rglob("*.py") if found(file.read_text(encoding="utf-8"))]
