import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from comfy_api_service import __version__
from comfy_api_service.api.app import openapi_text

Shell = Callable[..., Any]
COMMANDS = (
    ("serve",),
    ("demo",),
    ("simulate",),
    ("generate",),
    ("jobs", "list"),
    ("jobs", "show"),
    ("jobs", "watch"),
    ("jobs", "cancel"),
    ("jobs", "save"),
    ("workflows", "add"),
    ("workflows", "list"),
    ("workflows", "show"),
    ("workflows", "run"),
    ("workflows", "inspect"),
    ("workflows", "delete"),
    ("doctor",),
    ("migrate",),
    ("openapi",),
    ("version",),
)
HEAVY = ("aiohttp", "alembic", "fastapi", "httpx2", "pydantic", "sqlalchemy", "uvicorn", "PIL")


def test_every_command_is_in_the_list(shell: Shell) -> None:
    for path, shown in (
        ((), shell("--help").out),
        (("jobs",), shell("jobs", "--help").out),
        (("workflows",), shell("workflows", "--help").out),
    ):
        for command in COMMANDS:
            if command[:-1] == path:
                assert f" {command[-1]} " in shown


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(shell: Shell, command: tuple[str, ...]) -> None:
    ended = shell(*command, "--help")
    assert ended.code == 0
    assert "Examples" in ended.out
    assert f"comfy-api {' '.join(command)}" in ended.out


def test_help_tells_the_exit_codes(shell: Shell) -> None:
    assert "3 no server answers" in shell("--help").out


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_version(shell: Shell, arguments: tuple[str, ...]) -> None:
    ended = shell(*arguments)
    assert (ended.code, ended.out.split()[0]) == (0, "comfy-api-service")


def test_the_document_of_the_api_as_it_is_committed(shell: Shell) -> None:
    ended = shell("openapi")
    assert (ended.code, ended.out) == (0, openapi_text(__version__))


def test_help_loads_nothing_heavy() -> None:
    code = (
        f"import sys, comfy_api_service.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_wrong_option_is_a_usage_error(shell: Shell) -> None:
    assert shell("serve", "--no-such-option").code == 2
    assert shell("no-such-command").code == 2
