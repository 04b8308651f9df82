import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_api_service.cli import listening
from comfy_api_service.cli.faults import Fault

Shell = Callable[..., Any]


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_busy_port_is_named_with_what_to_do(busy: int) -> None:
    with pytest.raises(listening.PortInUse) as told:
        listening.listen("127.0.0.1", busy)
    assert str(busy) in told.value.message
    assert "--port" in told.value.remedy


def test_the_port_is_taken_at_once() -> None:
    first = listening.listen("127.0.0.1", 0)
    with pytest.raises(listening.PortInUse):
        listening.listen("127.0.0.1", listening.port_of(first))
    listening.close(first)


def test_a_free_port_instead_of_a_busy_one(busy: int) -> None:
    sockets, moved = listening.listen_or_free("127.0.0.1", busy)
    assert moved
    assert listening.port_of(sockets) != busy
    listening.close(sockets)


def test_the_first_free_port(busy: int) -> None:
    assert listening.free_port(busy) > busy


def test_all_addresses_of_a_name_get_one_port() -> None:
    sockets = listening.listen("localhost", 0)
    assert len({one.getsockname()[1] for one in sockets}) == 1
    listening.close(sockets)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(Fault, match="no address of this machine") as told:
        listening.listen(host, 0)
    assert told.value.exit_code == 2


def test_a_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(Fault, match="more rights") as told:
        listening.listen("127.0.0.1", 80)
    assert "above 1023" in told.value.remedy


@pytest.mark.parametrize(
    ("host", "shown", "beyond"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", False),
        ("0.0.0.0", "http://127.0.0.1:80", True),
        ("::", "http://[::1]:80", True),
        ("::1", "http://[::1]:80", False),
        ("gpu.example", "http://gpu.example:80", False),
    ],
)
def test_an_address_that_can_be_opened_is_told_and_that_there_are_more(
    host: str, shown: str, *, beyond: bool
) -> None:
    assert listening.url_of(host, 80) == shown
    assert (host in listening.beyond(host)) is beyond


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
    ],
)
def test_loopback(host: str, *, inside: bool) -> None:
    assert listening.is_loopback(host) is inside


def test_exposure_needs_authentication_or_a_word() -> None:
    with pytest.raises(Fault) as told:
        listening.refuse_exposure("0.0.0.0", auth_enabled=False, insecure=False)
    assert "--insecure" in told.value.remedy
    assert "reverse proxy" in told.value.remedy
    assert "AUTH_ENABLED=true" in told.value.remedy
    listening.refuse_exposure("0.0.0.0", auth_enabled=True, insecure=False)
    listening.refuse_exposure("0.0.0.0", auth_enabled=False, insecure=True)
    listening.refuse_exposure("127.0.0.1", auth_enabled=False, insecure=False)


def test_serve_refuses_exposure(shell: Shell) -> None:
    ended = shell("serve", "--host", "0.0.0.0", "--port", "0")
    assert ended.code == 2
    assert "--insecure" in ended.err
    assert "Traceback" not in ended.err


def test_serve_tells_all_wrong_settings_at_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_LIMIT", "none")
    monkeypatch.setenv("JOB_TIMEOUT", "-1")
    ended = shell("serve")
    assert ended.code == 2
    assert "QUEUE_LIMIT" in ended.err
    assert "JOB_TIMEOUT" in ended.err


def test_serve_tells_what_does_nothing(shell: Shell, busy: int, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AUTH_ENABLE=true\n")
    ended = shell("serve", "--port", str(busy))
    assert "unknown: AUTH_ENABLE (AUTH_ENABLED?)" in ended.err


def test_serve_tells_a_busy_port(shell: Shell, busy: int) -> None:
    ended = shell("serve", "--port", str(busy))
    assert ended.code == 1
    assert f"Port {busy}" in ended.err
    assert "fix:" in ended.err


def test_serve_tells_a_folder_without_comfyui(shell: Shell) -> None:
    ended = shell("serve", "--port", "0", "--comfyui-dir", "elsewhere")
    assert ended.code == 2
    assert "main.py" in ended.err


def test_simulate_tells_a_busy_port(shell: Shell, busy: int) -> None:
    assert shell("simulate", "--port", str(busy)).code == 1
