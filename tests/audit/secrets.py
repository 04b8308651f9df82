"""Secrets in the tree: what git has or would add, by Kingfisher's rules, and keys of this service by their checksum.

Nothing that is found is tried out or sent anywhere, and none of it is printed.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.audit.finding import Finding, Verdict

from comfy_api_service.domain.credentials import parse_api_key

PART: Final = "secrets"
BASELINE: Final = Path(__file__).with_name("secrets.toml")
NOTHING, SOMETHING = 0, 200
"""Kingfisher's exit codes."""
LIMIT_SECONDS: Final = 300
OWN_RULE: Final = "key of this service"
_KEY: Final = re.compile(r"cui_sk_[0-9A-Za-z]+")
_LARGEST: Final = 5_000_000
"""Bytes of a file that is searched for keys of this service."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something was found."""

    path: str
    rule: str
    snippet: str
    line: int

    @property
    def mark(self) -> tuple[str, str, str]:
        """By which it is known: lines move."""
        return self.path, self.rule, self.snippet


def baseline(path: Path = BASELINE) -> set[tuple[str, str, str]]:
    """What is known and no secret. Raises `ValueError` for an entry without a reason."""
    known = tomllib.loads(path.read_text(encoding="utf-8")).get("known", [])
    for one in known:
        if not one.get("reason"):
            raise ValueError(f"{path.name}: {one['path']} has no reason")
    return {(one["path"], one["rule"], one["snippet"]) for one in known}


def look(root: Path, known: set[tuple[str, str, str]] | None = None) -> Finding:
    accepted = baseline() if known is None else known
    try:
        with tempfile.TemporaryDirectory(prefix="comfy-api-audit-") as name:
            tree = Path(name) / "tree"
            count = _copy(root, tree)
            spots = [*_by_kingfisher(tree), *_by_checksum(tree)]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return Finding(PART, Verdict.NOT_KNOWN, "the tree could not be searched", [str(error)[:300]])
    bad = [f"{one.path}:{one.line}: {one.rule}" for one in spots if one.mark not in accepted]
    gone = sorted(accepted - {one.mark for one in spots})
    details = bad + [f"{BASELINE.name}: {path} ({rule}) is there no more" for path, rule, _ in gone]
    if details:
        text = (
            f"{len(bad)} in {count} files"
            if bad
            else f"{len(gone)} entries of {BASELINE.name} are out of date"
        )
        return Finding(PART, Verdict.BAD, text, details)
    return Finding(PART, Verdict.GOOD, f"none in {count} files, beside {len(accepted)} known to be none")


def _copy(root: Path, tree: Path) -> int:
    """What belongs to the project alone: environments and caches have secrets of others."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root, capture_output=True, check=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    count = 0
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, tree / name)
            count += 1
    if not count:
        raise ValueError("git knows no file there")
    return count


def _by_kingfisher(tree: Path) -> Iterator[Spot]:
    done = subprocess.run(
        [Path(sys.executable).with_name("kingfisher"), "scan", ".", "--no-validate", "--git-history", "none",
         "--format", "json", "--no-update-check", "--no-dedup", "--quiet"],
        cwd=tree, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    if done.returncode not in {NOTHING, SOMETHING}:
        raise ValueError(f"kingfisher ended with {done.returncode}")
    told: list[dict[str, Any]] = json.loads(done.stdout or "{}").get("findings", [])
    if bool(told) != (done.returncode == SOMETHING):
        raise ValueError("kingfisher's answer was not understood")
    for one in told:
        found = one["finding"]
        yield Spot(found["path"].removeprefix("./"), one["rule"]["id"], found["snippet"], found["line"])


def _by_checksum(tree: Path) -> Iterator[Spot]:
    """Each key that the service made has a checksum that fits; examples have none."""
    for path in sorted(tree.rglob("*")):
        if path.is_file() and path.stat().st_size <= _LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            for found in _KEY.finditer(text):
                if parse_api_key(found[0]) is not None:
                    line = text.count("\n", 0, found.start()) + 1
                    yield Spot(str(path.relative_to(tree)), OWN_RULE, found[0], line)
