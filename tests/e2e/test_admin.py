"""Accounts from the shell: before the first start, and beside a service that runs."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.processes import client, serve, simulator, until_online
from tests.support.schema import url_of

LIMIT = 60.0
ON = {"AUTH_ENABLED": "true", "SECRET_KEY": "4b0f6a1d9c3e5a7788d2e1f0c9b8a7d6"}
PASSWORD = "correct horse battery"
pytestmark = pytest.mark.timeout(240)  # the shell is started some twenty times


class Shell:
    """`comfy-api admin …` on the database of a folder."""

    def __init__(self, folder: Path) -> None:
        url = url_of(folder)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("COMFY")}
        self.environment = {**clean, **ON, "NO_COLOR": "1", "COLUMNS": "200"}
        if url is not None:
            self.environment["DATABASE_URL"] = url
        self.folder = folder
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """What it printed on stdout."""
        done = subprocess.run(
            [sys.executable, "-m", "comfy_api_service", "admin", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.err = done.stderr
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    def key(self, *arguments: str, **given: Any) -> str:
        """The one line on stdout."""
        (line,) = self(*arguments, **given).splitlines()
        assert line.startswith("cui_sk_")
        assert line not in self.err
        return line


def new(name: str) -> list[str]:
    return ["create", "--email", f"{name}@example.com", "--username", name]


@pytest.fixture
def shell(tmp_path: Path, dialect: str) -> Shell:
    del dialect  # binds the folder to its database
    return Shell(tmp_path)


def test_accounts_are_made_before_the_first_start_and_changed_beside_it(
    tmp_path: Path, shell: Shell, until: Callable[..., Any]
) -> None:
    root = shell.key(*new("Root"))
    with serve(tmp_path) as to_all:
        until(lambda: any("1 account and its keys are not used" in line for line in to_all.output))
    with (
        simulator(tmp_path, "--seconds-per-step", "0.005") as sim,
        serve(tmp_path, sim.url, **ON) as service,
        client(service) as http,
    ):
        until_online(http)
        _beside(shell, http, root, until)


def _beside(shell: Shell, http: httpx2.Client, root: str, until: Callable[..., Any]) -> None:
    def status(key: str, path: str = "/api/v1/auth/me") -> int:
        return http.get(path, headers={"X-API-Key": key}).status_code

    def login(name: str) -> int:
        return http.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD}).status_code

    assert status(root, "/admin/stats") == 200
    file = shell.folder / "password.txt"
    file.write_text(f"{PASSWORD}\n")
    bob = shell.key(*new("bob"), "--role", "user", "--tier", "pro", "--password-file", "password.txt")
    assert (status(bob), status(bob, "/admin/stats"), login("bob")) == (200, 403, 200)
    assert login("root") == 401, "it has no password"
    narrow = shell.key("key", "bob@example.com", "--name", "reader", "--scopes", "read", "--expires", "90d")
    assert status(narrow) == 200
    assert http.post("/api/v1/jobs", json={}, headers={"X-API-Key": narrow}).status_code == 403

    listed = {one["username"]: one for one in json.loads(shell("list", "--json"))["users"]}
    assert list(listed) == ["root", "bob"]
    assert (listed["bob"]["role"], listed["bob"]["tier"]) == ("user", "pro")
    assert "bob@example.com" in shell("list")

    shell("promote", "bob")
    wide = shell.key("key", listed["bob"]["user_id"])
    until(lambda: status(wide, "/admin/stats") == 200)
    shell("disable", "root")
    until(lambda: status(root) == 401)
    shell("disable", "root", "--enable")
    shell("promote", "root", "--demote")
    until(lambda: status(root, "/admin/stats") == 403)

    shell("disable", "bob", code=1)
    assert "The last administrator stays one." in shell.err
    entries = http.get("/admin/audit?limit=100", headers={"X-API-Key": wide}).json()["entries"]
    acts = [entry for entry in entries if entry["address"] == "shell"]
    assert [entry["action"] for entry in acts[::-1]] == [
        "user.create", "key.create", "user.create", "key.create", "key.create", "user.change", "key.create",
        "user.change", "user.change", "user.change",
    ]  # fmt: skip
    assert {entry["actor"] for entry in acts} == {None}


@pytest.mark.sqlite
def test_a_password_is_asked_for_on_a_terminal_and_not_shown(shell: Shell) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "comfy_api_service", "admin", *new("ada")],
        cwd=shell.folder,
        env=shell.environment,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    said = b""
    try:
        for prompt in (b"Password (empty: none): ", b"Again: "):
            while prompt not in said:
                said += os.read(master, 1024)
            os.write(master, f"{PASSWORD}\n".encode())
        out, _ = process.communicate()
        assert process.returncode == 0
        assert out.startswith(b"cui_sk_")
        said += os.read(master, 4096)
    finally:
        guard.cancel()
        process.kill()
        os.close(master)
    assert PASSWORD.encode() not in said
    assert b"ada is an administrator" in said
