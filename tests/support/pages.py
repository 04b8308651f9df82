"""The examples of the documents, run as they stand.

Two things are replaced: the address, since the port of the documents may be taken, and the command, which stands
in the environment that runs the tests.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:8000"
LIMIT = 100.0
END = "\N{SYMBOL FOR END OF TRANSMISSION}"
"""Stands between the outputs of two blocks; no answer holds it."""

Document = dict[str, Any]

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")


def blocks(page: str, language: str, *, section: str | None = None) -> list[str]:
    """The code blocks of a page in this language, of one section (by its `## ` heading) or of all."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} blocks in {page}"
    return found


def command(block: str) -> list[str]:
    """The arguments of the one `comfy-api` that a block ends in, which keeps running."""
    words = shlex.split(block.splitlines()[-1])
    assert words[0] == ".venv/bin/comfy-api"
    return words[1:]


@dataclass(frozen=True)
class Place:
    """A running service, and a folder to work in."""

    url: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def as_here(self, code: str) -> str:
        return code.replace(ADDRESS, self.url.removeprefix("http://")).replace(
            ".venv/bin/comfy-api", f"{sys.executable} -m comfy_api_service"
        )

    def run(self, *command: str, given: str = "") -> str:
        """What it prints; it must end well."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.folder),
            "COMFY_API_URL": self.url,
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",  # as readers have it: tools take some patterns otherwise than without
            "NO_PROXY": "127.0.0.1",
            **self.environment,
        }
        ended = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def lay_examples(self) -> None:
        shutil.copytree(ROOT / "docs" / "examples", self.folder / "docs" / "examples")

    def shell(self, found: list[str]) -> list["Output"]:
        """Run blocks one after the other in one shell; what each printed."""
        script = f"\nprintf '%s' '{END}'\n".join(self.as_here(block) for block in found)
        return [Output(text) for text in self.run("sh", "-eu", given=script).split(END)]

    def picture(self, name: str) -> Image.Image:
        with Image.open(self.folder / name) as picture:
            picture.load()
            return picture


class Output:
    """What a block printed: JSON documents, streams of events and headers, one after the other."""

    def __init__(self, text: str) -> None:
        self._rest = text

    def document(self) -> Document:
        """The next JSON object; headers before it are passed over."""
        head = re.match(r"\s*HTTP/1\.1 .*?\r?\n\r?\n", self._rest, re.DOTALL)
        self._rest = self._rest[head.end() if head else 0 :].lstrip()
        document, end = json.JSONDecoder().raw_decode(self._rest)
        self._rest = self._rest[end:]
        assert isinstance(document, dict)
        return document

    def events(self) -> list[Document]:
        """The next stream, to its end."""
        found = []
        for line in re.finditer(r"^data: (.*)$\n\n", self._rest, re.MULTILINE):
            found.append(json.loads(line[1]))
            if found[-1]["type"] == "done":
                self._rest = self._rest[line.end() :]
                return found
        raise AssertionError(f"a stream without an end: {self._rest}")

    @property
    def rest(self) -> str:
        return self._rest.strip()
