"""Accounts from the shell: what is refused, and what is said of it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_api_service.cli.main import main

PASSWORD = "correct horse battery"
Admin = Callable[..., tuple[str, str]]


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Admin:
    """`comfy-api admin …` in a folder of its own, without a terminal: what it says on stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["admin", *arguments])
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, (arguments, said)
        return said.out, said.err

    return run


def new(name: str) -> list[str]:
    return ["create", "--email", f"{name}@example.com", "--username", name]


def test_what_is_typed_wrongly_opens_nothing(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, words in (
        (["create", "--email", "nobody", "--username", "ada"], "--email"),
        (["create", "--email", "a@b.c", "--username", "a b"], "--username"),
        ([*new("ada"), "--password", PASSWORD, "--password-file", "-"], "not both"),
        ([*new("ada"), "--password-file", "absent.txt"], "cannot be read"),
        ([*new("ada"), "--password-file", "empty.txt"], "is empty"),
        (["key", "ada", "--scopes", "read,fly"], "--scopes"),
        (["key", "ada", "--expires", "soon"], "--expires"),
        (["key", "ada", "--name", ""], "--name"),
    ):
        assert words in admin(*arguments, code=2)[1]
    assert not (tmp_path / "data").exists()
    assert admin("list")[0] == ""


def test_what_cannot_be_is_said_and_changes_nothing(admin: Admin) -> None:
    out, err = admin(*new("root"))
    assert out.startswith("cui_sk_")
    assert len(out.splitlines()) == 1
    assert out.strip() not in err
    admin(*new("bob"), "--role", "user")
    before = admin("list", "--json")[0]
    assert [one["username"] for one in json.loads(before)["users"]] == ["root", "bob"]
    for arguments, words in (
        (["disable", "root"], "The last administrator stays one."),
        (["promote", "root", "--demote"], "The last administrator stays one."),
        (["key", "nobody"], "There is no such account."),
        (["key", "bob", "--scopes", "admin"], "Only an administrator's key"),
        (["key", "bob", "--expires", "2000-01-01"], "future"),
        (new("bob"), "belongs to an account"),
        ([*new("eve"), "--tier", "gold"], "must be one of"),
        ([*new("eve"), "--password", "short"], "password"),
    ):
        out, err = admin(*arguments, code=1)
        assert out == ""
        assert words in err
    assert admin("list", "--json")[0] == before
    assert "bob@example.com" in admin("list")[0]
