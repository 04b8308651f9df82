"""The service's own certificate: what cannot be used is refused with what to do, before anything starts."""

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from comfy_api_service.cli.doctor import tls
from comfy_api_service.cli.doctor.finding import Level
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.tls import server_context, tls_of
from comfy_api_service.settings import Settings

Shell = Callable[..., Any]
CA = trustme.CA()
NOW = dt.datetime.now(dt.UTC)


def pair(folder: Path, **validity: Any) -> tuple[Path, Path]:
    """A certificate with those between it and the authority, and its key."""
    issued = CA.create_child_ca().issue_cert("localhost", **validity)
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def days(number: float) -> dt.datetime:
    return NOW + dt.timedelta(days=number)


def test_a_good_pair(tmp_path: Path) -> None:
    cert, key = pair(tmp_path, not_before=days(-1), not_after=days(90))
    assert server_context(cert, key).minimum_version >= ssl.TLSVersion.TLSv1_2
    found = tls.certificate(cert, key)
    assert (found.status, found.message) == (Level.OK, f"valid until {days(90):%Y-%m-%d}")
    assert tls_of(Settings(_env_file=None)) is None
    assert tls_of(Settings(_env_file=None, tls_cert_file=cert, tls_key_file=key)) is not None


@pytest.mark.parametrize(
    ("begins", "ends", "status", "words"),
    [
        (-90, -1, Level.FAULT, "it has expired"),
        (1, 90, Level.FAULT, "not valid yet"),
        (-80, 5, Level.WARNING, f"it expires on {days(5):%Y-%m-%d}"),
    ],
)
def test_its_time(tmp_path: Path, begins: int, ends: int, status: Level, words: str) -> None:
    found = tls.certificate(*pair(tmp_path, not_before=days(begins), not_after=days(ends)))
    assert found.status is status
    assert words in found.message
    assert found.remedy


def another_key(_: Path, key: Path) -> None:
    key.write_bytes(CA.issue_cert("localhost").private_key_pem.bytes())


def no_certificate(cert: Path, _: Path) -> None:
    cert.write_text("hello")


def no_key(cert: Path, key: Path) -> None:
    key.write_bytes(cert.read_bytes())


def binary(cert: Path, _: Path) -> None:
    cert.write_bytes(load_pem_x509_certificate(cert.read_bytes()).public_bytes(Encoding.DER))


def pass_phrase(_: Path, key: Path) -> None:
    plain = load_pem_private_key(key.read_bytes(), None)
    locked = plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    key.write_bytes(locked)


def absent(_: Path, key: Path) -> None:
    key.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (another_key, "is not that of the certificate"),
        (no_certificate, "not a certificate and a key in PEM"),
        (no_key, "not a certificate and a key in PEM"),
        (binary, "not a certificate and a key in PEM"),
        (pass_phrase, "needs a pass phrase"),
        (absent, "cannot be read (No such file or directory)"),
    ],
)
def test_a_pair_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Path, Path], None], words: str) -> None:
    cert, key = pair(tmp_path)
    spoil(cert, key)
    with pytest.raises(Fault) as told:
        server_context(cert, key)
    found = tls.certificate(cert, key)
    assert (found.status, found.message, found.remedy) == (Level.FAULT, told.value.message, told.value.remedy)
    assert words in found.message
    assert found.remedy
    assert str(tmp_path) not in found.message


def test_the_doctor_looks_at_it(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = pair(tmp_path, not_before=days(-90), not_after=days(-1))
    monkeypatch.setenv("TLS_CERT_FILE", str(cert))
    monkeypatch.setenv("TLS_KEY_FILE", str(key))
    ended = shell("doctor", "--port", "0")
    assert "✗ TLS certificate: it has expired" in ended.out
    monkeypatch.setenv("TLS_KEY_FILE", str(tmp_path / "absent.pem"))
    ended = shell("doctor", "--port", "0")
    assert ended.code == 1
    assert "✗ setting TLS_KEY_FILE: cannot be read" in ended.out
    assert "PEM file with the key" in ended.out
