"""The handbook: every page stands in its table of contents once, and the site is made of them, for readers offline."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONTENTS = DOCS / "README.md"
FROM_OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|link(?! rel="(?:index|next|prev|search)"))[^>]*=["'](?:https?:)?//"""
)


def listed() -> list[str]:
    """Of the tables alone: they are what the site's order is made of."""
    text = CONTENTS.read_text(encoding="utf-8")
    return re.findall(r"^\| \[[^\]]+\]\(([\w/-]+\.md)\)", text, re.MULTILINE)


def test_every_page_stands_in_the_table_of_contents_once() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {CONTENTS.name}
    assert sorted(listed()) == sorted(pages)


def test_the_readme_leads_to_the_table_of_contents() -> None:
    assert "(docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make handbook` makes it."""
    folder = tmp_path_factory.mktemp("handbook")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [command] = re.findall(
        r"^handbook:.*?\$\(BIN\)/sphinx-build (.*?) \$\(ARGS\)$", makefile, re.DOTALL | re.MULTILINE
    )
    arguments = command.replace(".cache/handbook", str(folder / "cache")).split()
    assert arguments[-2:] == ["docs", "site"]
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments[:-1], str(folder / "site")],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "site"


def test_the_site_is_whole_and_asks_no_other_host(site: Path) -> None:
    for page in listed():
        assert (site / page).with_suffix(".html").is_file(), page
    built = sorted(site.rglob("*.html"))
    assert site / "index.html" in built
    for html in built:
        assert not FROM_OUTSIDE.findall(html.read_text(encoding="utf-8")), html.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), (
            style.name
        )
    assert (site / "searchindex.js").is_file()


def test_links_have_the_names_of_what_they_lead_to_and_code_is_what_it_says(site: Path) -> None:
    page = (site / "OPERATIONS.html").read_text(encoding="utf-8")
    assert re.search(r'href="SETTINGS.html"[^>]*><span[^>]*>Settings</span>', page)
    assert not re.search(r">[A-Z_]+\.md</(?:span|a)>", page)
    assert "highlight-default" not in page
    assert "handbook.css" in page


def test_the_order_of_the_site_is_that_of_the_table(site: Path) -> None:
    sidebar = (
        (site / "index.html")
        .read_text(encoding="utf-8")
        .partition("sidebar-tree")[2]
        .partition("</aside>")[0]
    )
    linked = re.findall(
        r'<li class="toctree-l1"><a class="reference internal" href="([\w/-]+)\.html"', sidebar
    )
    assert [f"{page}.md" for page in linked] == listed()
