"""What the documents name exists: files, headings, commands of make and of the shell."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from comfy_api_service.cli.main import app

ROOT = Path(__file__).parents[2]


def _pages(folder: Path) -> Iterator[Path]:
    """Those of the root itself, and all below any other folder."""
    return folder.glob("*.md") if folder == ROOT else folder.rglob("*.md")


PAGES = sorted(
    page for folder in ("", "docs", "deploy", "benchmarks", "tests", "src") for page in _pages(ROOT / folder)
)
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```[^\n]*\n(.*?)^```$|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(<?([^)>\s]+)>?\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    found: dict[str, int] = {}
    made = set()
    for heading in headings:
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        made.add(f"{anchor}-{count}" if count else anchor)
    return made


def code_of(page: Path) -> list[str]:
    """Everything that stands as code on a page, line by line, comments of the shell left out."""
    spans = [block or span for block, span in _CODE.findall(text_of(page))]
    return [line.partition(" #")[0].strip() for span in spans for line in span.splitlines()]


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), f"{link} does not exist"
        if anchor:
            assert target.suffix == ".md", f"{link} is no page with headings"
            assert anchor in anchors(target), f"{link}: there is no such heading"


@each_page
def test_every_target_of_make_exists(page: Path) -> None:
    for line in code_of(page):
        for target in re.findall(r"(?:^|[;&|] *)make ([a-z-]+)", line):
            assert target in TARGETS, f"there is no `make {target}`"


@each_page
def test_every_command_of_the_shell_exists(page: Path) -> None:
    for line in code_of(page):
        for named in re.findall(r"(?:^|[\s;&|=/])comfy-api((?: +[^\s;&|]+)*)", line):
            _check_command(named.split())


def _check_command(words: list[str]) -> None:
    """Each word as far as commands go, then each option."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("--"):
            options = {option for parameter in command.params for option in parameter.opts}
            if getattr(command, "takes_parameters", False):
                continue  # those of a workflow, which the service knows
            assert word.partition("=")[0] in options, f"`comfy-api {' '.join(words)}`: no option {word}"
        elif isinstance(command, TyperGroup) and not word.startswith(("-", "…")):
            assert word in command.commands, f"there is no `comfy-api {' '.join(words)}`"
            command = command.commands[word]


def test_the_checks_find_something() -> None:
    lines = [line for page in PAGES for line in code_of(page)]
    assert {"make demo", "make test", "make install"} <= set(lines)
    assert any("comfy-api serve" in line for line in lines)
    assert {"help", "demo", "test", "lint", "bench", "fmt"} <= TARGETS
