"""The doctor's question to a prompt hook."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.hooks import hook_server

from comfy_api_service.cli.doctor.finding import Finding, Level
from comfy_api_service.cli.doctor.hook import examine
from comfy_api_service.settings import Settings


async def examined(**given: Any) -> Finding:
    return await examine(Settings(_env_file=None, **given))


async def test_one_that_answers_refuses_lies_and_hangs() -> None:
    async with hook_server() as hook:
        found = await examined(prompt_hook=hook.url)
        assert (found.status, found.subject) == (Level.OK, "prompt hook")
        hook.answers({"action": "refuse"})
        assert (await examined(prompt_hook=hook.url)).status is Level.WARNING
        hook.answers({"action": "maybe"})
        found = await examined(prompt_hook=hook.url)
        assert (found.status, "action" in found.message) == (Level.FAULT, True)
        hook.hangs()
        found = await examined(prompt_hook=hook.url, prompt_hook_timeout=0.1)
        assert (found.status, found.message) == (Level.FAULT, "no answer within 0.1 s")
    found = await examined(prompt_hook=hook.url)
    assert (found.status, "cannot be reached" in found.message) == (Level.FAULT, True)


async def test_a_function_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_rules.py").write_text("raise ValueError('canary')")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (
        ("no_such_rules:check", "cannot be imported (ModuleNotFoundError)"),
        ("broken_rules:check", "cannot be imported (ValueError)"),
        ("json:check", "has no function check"),
        ("json:__name__", "has no function __name__"),
    ):
        found = await examined(prompt_hook=f"python:{name}")
        assert (found.status, message in found.message) == (Level.FAULT, True), found
