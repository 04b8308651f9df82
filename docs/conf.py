"""The handbook: these pages as a site that needs no network, to build or to read (`make handbook`).

README.md is the one table of contents: what it links, in its order, is the site's.
"""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Final

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONTENTS: Final = "README"

project = PROJECT["name"]
version = release = PROJECT["version"]
root_doc = CONTENTS
extensions = ["myst_parser"]
myst_heading_anchors = 6  # as GitHub names them, so that a link holds in both places
nitpicky = True
highlight_language = "text"  # of blocks that name none, as GitHub has them

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["handbook.css"]
html_css_files = ["handbook.css"]

lexers["mermaid"] = TextLexer()  # drawing it would take a script from another host


def chapters(contents: str) -> list[tuple[str, list[str]]]:
    """The pages that the table of contents links, by its headings, in its order."""
    found = []
    for part in contents.split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        found.append((title, re.findall(r"^\| \[[^\]]+\]\(([\w/-]+)\.md\)", rest, re.MULTILINE)))
    return found


def with_files(_: Sphinx, name: str, source: list[str]) -> None:
    """Files of the repository outside of these pages come along as downloads; a folder is named, no more."""

    def told(link: re.Match[str]) -> str:
        text, target = link[1], (HERE / name).parent / link[2]
        if target.resolve().is_relative_to(HERE) or not target.exists():
            return link[0]
        return text if target.is_dir() else f"{{download}}`{text.replace('`', '')} <{link[2]}>`"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)", told, source[0])


def with_titles(_: Sphinx, __: str, source: list[str]) -> None:
    """A link that is named as its file is named by what it leads to: there are no files for readers of a site."""
    source[0] = re.sub(r"(?<!!)\[([A-Z_]+\.md)\]\((\1(?:#[\w-]+)?)\)", r"[](\2)", source[0])


def with_contents(_: Sphinx, name: str, source: list[str]) -> None:
    """Give the site's index what its navigation is made of."""
    if name == CONTENTS:
        for title, pages in chapters(source[0]):
            names = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n"


def with_index(app: Sphinx, failed: Exception | None) -> None:
    """A folder opens at `index.html`."""
    if failed is None:
        shutil.copyfile(app.outdir / f"{CONTENTS}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", with_files)
    app.connect("source-read", with_titles)
    app.connect("source-read", with_contents)
    app.connect("build-finished", with_index)
