"""What `make lint` runs, beside the other tests: a core that waits for one tool is a core that tests nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMANDS = re.findall(
    r"^\t@\$\(BIN\)/(.+)$",
    (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint: ")[2].partition("\n\n")[0],
    re.MULTILINE,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", COMMANDS)
def test_linters_find_nothing(command: str) -> None:
    done = subprocess.run(
        f"{BIN}/{command}", shell=True, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_none_is_left_out() -> None:
    assert [command.split()[0] for command in COMMANDS] == [
        "ruff", "ruff", "mypy", "lint-imports", "hadolint", "shellcheck",
    ]  # fmt: skip
