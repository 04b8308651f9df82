"""The Containerfile as its builder reads it, and the files that it would be given."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CONTAINERFILE: Final = ROOT / "deploy" / "Containerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the Containerfile, continuations joined: `RUN`, and the rest of it."""

    word: str
    rest: str

    @property
    def exec_form(self) -> list[str] | None:
        """The arguments of a JSON form; None if it is a shell's line."""
        try:
            parsed: Any = json.loads(self.rest)
        except json.JSONDecodeError:
            return None
        return [str(item) for item in parsed]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, `FROM` first; what stands before the first is repeated in none."""
    found: list[list[Instruction]] = []
    for instruction in _instructions():
        if instruction.word == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def argument(name: str) -> str:
    """The default of a build argument. Raises `KeyError`."""
    for instruction in _instructions():
        if instruction.word == "ARG" and instruction.rest.startswith(f"{name}="):
            return instruction.rest.partition("=")[2]
    raise KeyError(name)


def pairs(word: str) -> dict[str, str]:
    """What the last stage sets by `ENV` or `LABEL`."""
    return {
        key: value
        for instruction in stages()[-1]
        if instruction.word == word
        for key, _, value in (item.partition("=") for item in shlex.split(instruction.rest))
    }


def only(word: str) -> Instruction:
    """The last stage's one instruction of this kind."""
    (found,) = (instruction for instruction in stages()[-1] if instruction.word == word)
    return found


def health_check() -> list[str]:
    """The arguments of the health check's command."""
    command = Instruction("CMD", only("HEALTHCHECK").rest.partition("CMD ")[2]).exec_form
    assert command is not None, "the health check is a shell's line"
    return command


def context(root: Path = ROOT) -> Iterator[Path]:
    """The files that `.dockerignore` lets through to the builder, relative to `root`.

    Knows what that file uses: `*` first, then exceptions by exact name, then `**/` patterns.
    """
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*", "everything is left out unless it is named"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    dropped = [line.removeprefix("**/") for line in lines[1:] if not line.startswith("!")]
    for name in allowed:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and not any(fnmatch(part, mask) for part in inside.parts for mask in dropped):
                yield inside


def _instructions() -> Iterator[Instruction]:
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield Instruction(word, rest.strip())
