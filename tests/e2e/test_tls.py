"""The service over https with a certificate of its own, and behind a proxy on the same machine."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from tests.support.postgres import PostgresServer
from tests.support.schema import copied
from websockets.sync.client import connect

Start = Callable[..., Any]
Until = Callable[..., Any]
NOWHERE = "http://127.0.0.1:9"
TOLD = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}


@pytest.fixture
def trusting() -> tuple[trustme.CA, ssl.SSLContext]:
    """An authority, and what a client that trusts it alone connects with."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return authority, context


@pytest.fixture
def certificate(trusting: tuple[trustme.CA, ssl.SSLContext], tmp_path: Path) -> dict[str, str]:
    issued = trusting[0].issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    return {"TLS_CERT_FILE": str(tmp_path / "cert.pem"), "TLS_KEY_FILE": str(tmp_path / "key.pem")}


@pytest.fixture
def https(trusting: tuple[trustme.CA, ssl.SSLContext]) -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30, trust_env=False, verify=trusting[1]) as client:
        yield client


def test_a_picture_over_https(
    start: Start,
    certificate: dict[str, str],
    https: httpx2.Client,
    trusting: tuple[trustme.CA, ssl.SSLContext],
    until: Until,
) -> None:
    comfyui = start("simulate", "--port", "0", "--load-seconds", "0", "--step-seconds", "0.01")
    simulator = comfyui.said(r"at (http://\S+)")[1]
    service = start("serve", "--port", "0", "--comfyui-url", simulator, HSTS_MAX_AGE="600", **certificate)
    assert service.url.startswith("https://127.0.0.1:")
    until(lambda: https.get(f"{service.url}/models", params={"kind": "checkpoints"}).json()["models"])
    root = https.get(f"{service.url}/")
    assert root.headers["strict-transport-security"] == "max-age=600"
    submitted = https.post(f"{service.url}/api/v1/jobs", json={"prompt": "a", "steps": 2}).json()
    assert submitted["location"].startswith(service.url)
    assert submitted["websocket_url"].startswith("wss://127.0.0.1:")
    with connect(submitted["websocket_url"], ssl=trusting[1]) as socket:
        told = [message for message in socket if isinstance(message, str)]
    assert '"done"' in told[-1]
    assert "https://" in "".join(told)
    assert "http://" not in "".join(told)
    found = https.get(submitted["location"]).json()
    assert found["status"] == "succeeded"
    assert https.get(f"{submitted['location']}/image").content[:4] == b"\x89PNG"
    with httpx2.Client(trust_env=False) as stranger, pytest.raises(httpx2.ConnectError):
        stranger.get(service.url)
    with httpx2.Client(trust_env=False) as plain, pytest.raises(httpx2.HTTPError):
        plain.get(service.url.replace("https", "http", 1))
    doctor = start("doctor", "--port", service.url.rpartition(":")[2], COMFYUI_URL=simulator, **certificate)
    doctor.ended()
    assert "this service answers on 127.0.0.1 already" in doctor.out
    assert "TLS certificate: valid until" in doctor.out
    assert service.stop() == 0
    assert "Traceback" not in service.err


def test_several_processes_over_https(
    start: Start, certificate: dict[str, str], https: httpx2.Client, postgres: PostgresServer
) -> None:
    with copied(postgres) as database:
        service = start("api", "--port", "0", "--workers", "2", DATABASE_URL=database, **certificate)
        assert service.url.startswith("https://127.0.0.1:")
        for _ in range(4):
            answer = https.get(f"{service.url}/", headers={"Connection": "close"})
            assert answer.json()["links"]["documentation"].startswith(service.url)
        assert service.stop() == 0


@pytest.mark.parametrize("command", [("serve",), ("api",), ("api", "--workers", "2")])
def test_a_key_of_another_certificate_stops_the_start(
    start: Start, certificate: dict[str, str], command: tuple[str, ...]
) -> None:
    key = trustme.CA().issue_cert("127.0.0.1").private_key_pem
    key.write_to_path(certificate["TLS_KEY_FILE"])
    database = {} if command == ("serve",) else {"DATABASE_URL": "postgresql://u@127.0.0.1:9/n"}
    refused = start(*command, "--port", "0", **certificate, **database)
    assert refused.ended(20) == 2
    assert "is not that of the certificate" in refused.err


def test_a_proxy_on_this_machine_is_believed_only_if_it_is_named(start: Start, http: httpx2.Client) -> None:
    """The web server believes nobody by itself, not by what its own environment variable says either."""
    plain = start("serve", "--port", "0", "--comfyui-url", NOWHERE, FORWARDED_ALLOW_IPS="*")
    answer = http.get(f"{plain.url}/", headers=TOLD)
    assert answer.json()["links"]["documentation"].startswith("http://")
    assert plain.stop() == 0
    behind = start(
        "serve", "--port", "0", "--comfyui-url", NOWHERE, TRUSTED_PROXIES="127.0.0.1", HSTS_MAX_AGE="60"
    )
    answer = http.get(f"{behind.url}/", headers=TOLD)
    assert answer.json()["links"]["documentation"].startswith("https://")
    assert answer.headers["strict-transport-security"] == "max-age=60"
    assert "strict-transport-security" not in http.get(f"{behind.url}/").headers
    assert behind.stop() == 0
