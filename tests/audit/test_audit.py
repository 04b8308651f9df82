"""The audit sees what it is there to see, and never takes silence for good news."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.audit import licences, secrets, vulnerabilities
from tests.audit.__main__ import DEVELOPMENT, NOT_KNOWN_CODE, SERVICE, code
from tests.audit.finding import Finding, Verdict
from tests.audit.lock import read
from tests.chaos.scene import ROOT

from comfy_api_service.domain.credentials import make_api_key


def answering(told: object, *, returncode: int = 0, stderr: str = "") -> vulnerabilities.Run:
    def run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, returncode, json.dumps(told), stderr)

    return run


WHOLE = {"name": "aiohttp", "version": "3.0", "vulns": []}
SKIPPED = {"name": "yarl", "skip_reason": "Dependency not found"}
FAULTY = {**WHOLE, "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1"]}]}


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({"dependencies": [WHOLE]}, Verdict.GOOD),
        ({"dependencies": [WHOLE, FAULTY, SKIPPED]}, Verdict.BAD),
        ({"dependencies": [WHOLE, SKIPPED]}, Verdict.NOT_KNOWN),
        ({"dependencies": []}, Verdict.NOT_KNOWN),
        ("nothing of the kind", Verdict.NOT_KNOWN),
    ],
)
def test_packages_that_were_not_looked_up_make_the_answer_not_known(told: object, verdict: Verdict) -> None:
    found = vulnerabilities.look(SERVICE, source="pypi", run=answering(told))
    assert found.verdict is verdict
    if verdict is Verdict.BAD:
        assert found.details == ["aiohttp 3.0: PYSEC-1, mended in 3.1"]


def test_a_source_that_is_away_is_not_known_and_ends_so() -> None:
    found = vulnerabilities.look(SERVICE, source="osv", run=answering(None, returncode=1, stderr="a\nno way"))
    assert (found.verdict, found.details) == (Verdict.NOT_KNOWN, ["no way"])
    good = Finding("x", Verdict.GOOD, "")
    assert code([good, found], allow_not_known=False) == NOT_KNOWN_CODE
    assert code([good, found], allow_not_known=True) == 0
    assert code([found, Finding("x", Verdict.BAD, "")], allow_not_known=True) == 1
    assert code([good], allow_not_known=False) == 0


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR Foo)", True),
        ("MPL-2.0 AND (Bar OR Foo)", False),
        ("MIT OR Apache-2.0 AND Foo", True),
        ("(MIT", False),
        ("MIT MIT", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_expressions_are_read_as_spdx_means_them(expression: str, good: bool) -> None:
    assert licences.permitted(expression, {"MIT", "Apache-2.0", "MPL-2.0"}) is good


def test_a_licence_for_tools_is_none_for_the_service() -> None:
    told = {"a": "MIT", "b": "GPL-3.0"}
    assert licences.look({"a"}, {"a", "b"}, told=lambda _: told).verdict is Verdict.GOOD
    found = licences.look({"a", "b"}, {"a", "b"}, told=lambda _: told)
    assert (found.verdict, found.details) == (Verdict.BAD, ["b: GPL-3.0"])
    assert licences.look({"c"}, {"c"}, told=lambda _: told).verdict is Verdict.NOT_KNOWN


def test_the_locked_packages_have_allowed_licences() -> None:
    found = licences.look(read(SERVICE), read(DEVELOPMENT))
    assert found.verdict is Verdict.GOOD, found.details


def test_nothing_in_the_tree_is_a_secret() -> None:
    found = secrets.look(ROOT)
    assert found.verdict is Verdict.GOOD, found.details


def test_secrets_are_found_and_not_printed(tmp_path: Path) -> None:
    """A key of this service, and what Kingfisher knows; in what git would add, and in nothing that it ignores."""
    key, password = make_api_key().text, "k7Gq2v" + "XbL9sTz4"
    (tmp_path / "notes.txt").write_text(f"one line\n{key}\n")
    (tmp_path / "settings.py").write_text(
        f'DATABASE_URL = "postgresql://comfy:{password}@db.internal/comfy"\n'
    )
    (tmp_path / "ignored.txt").write_text(key)
    (tmp_path / ".gitignore").write_text("ignored.txt\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    found = secrets.look(tmp_path, set())
    assert found.verdict is Verdict.BAD
    assert sorted(text.rpartition(": ")[0] for text in found.details) == ["notes.txt:2", "settings.py:1"]
    told = json.dumps([found.summary, found.details])
    assert key not in told
    assert password not in told
    gone = secrets.look(tmp_path, {("nowhere.py", "rule", "x")})
    assert "secrets.toml: nowhere.py (rule) is there no more" in gone.details


def test_a_tree_that_cannot_be_searched_is_not_known(tmp_path: Path) -> None:
    assert secrets.look(tmp_path, set()).verdict is Verdict.NOT_KNOWN
