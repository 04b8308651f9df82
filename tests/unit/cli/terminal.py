"""A terminal small enough to be checked by eye: it understands what the client writes, and refuses the rest."""

import base64
import io
import re
from dataclasses import dataclass, field

from PIL import Image

TOKEN = re.compile(
    r"\x1b_G(?P<kitty>[^;\x1b]*);?(?P<data>[^\x1b]*)\x1b\\"
    r"|\x1b\]1337;File=(?P<iterm>[^:]*):(?P<file>[^\a]*)\a"
    r"|\x1b\[(?P<csi>[?0-9;]*)(?P<final>[A-Za-z])"
    r"|\x1b(?P<esc>[78])"
    r"|(?P<char>[^\x1b])",
    re.DOTALL,
)


@dataclass(slots=True)
class Shown:
    """A picture on the screen, by the number of its top row among all rows ever."""

    row: int
    lines: int
    form: str | None
    size: tuple[int, int]


@dataclass(slots=True)
class Terminal:
    height: int = 24
    rows: list[str] = field(default_factory=lambda: [""])
    """All, with those that have scrolled away."""
    row: int = 0
    column: int = 0
    pictures: dict[str, Shown] = field(default_factory=dict)
    drawn: list[Shown] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    """Pictures that stay, wherever; in base64."""
    most: int = 0
    """So many pictures stood at once, at the most."""
    _saved: tuple[int, int] = (0, 0)
    _chunks: list[str] = field(default_factory=list)
    _about: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> list[str]:
        rows = [row.rstrip() for row in self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def _top(self) -> int:
        return max(0, len(self.rows) - self.height)

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            token = TOKEN.match(text, at)
            assert token is not None, f"not understood: {text[at : at + 40]!r}"
            at = token.end()
            if token["kitty"] is not None:
                self._kitty(_pairs(token["kitty"], ","), token["data"])
            elif token["iterm"] is not None:
                about = _pairs(token["iterm"], ";")
                assert int(about["size"]) == len(base64.b64decode(token["file"]))
                if "height" not in about:
                    self.finished.append(token["file"])
                    continue
                self._place(f"at row {self.row}", int(about["height"]), token["file"])
                self._move(
                    int(about["height"]) - 1
                )  # iTerm2 leaves the cursor behind the picture's last line
            elif token["final"] is not None:
                self._control(token["csi"], token["final"])
            elif token["esc"] == "7":
                self._saved = (self.row, self.column)
            elif token["esc"] == "8":
                self.row, self.column = self._saved
            else:
                self._character(token["char"])

    def _character(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._move(1)
            self.column = 0
        else:
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
            self.column += 1

    def _move(self, by: int) -> None:
        self.row += by
        while len(self.rows) <= self.row:
            self.rows.append("")

    def _control(self, given: str, final: str) -> None:
        number = int(given) if given.isdecimal() else 1
        if final == "A":
            assert self.row - number >= self._top, "above the screen"
            self.row -= number
        elif final == "K":
            assert given == "2"
            self.rows[self.row] = ""
        elif final == "M":
            removed = range(self.row, self.row + number)
            del self.rows[self.row : self.row + number]
            self.rows.extend("" for _ in removed)
            self.column = 0
            self.pictures = {  # iTerm2's stand in their cells, kitty's above them
                name: one
                for name, one in self.pictures.items()
                if one.row not in removed or not name.startswith("at")
            }
        else:
            assert (given, final) in {("?25", "l"), ("?25", "h")} or final == "m", (given, final)

    def _kitty(self, about: dict[str, str], data: str) -> None:
        if about.get("a") == "d":
            self.pictures.pop(f"id {about['i']}", None)
            return
        self._about |= about
        self._chunks.append(data)
        if about["m"] == "0":
            whole, self._about = self._about, {}
            assert (whole["a"], whole["f"]) == ("T", "100")
            data, self._chunks = "".join(self._chunks), []
            if "i" in whole:
                assert (whole["q"], whole["C"]) == ("2", "1"), "answers would be typed, the cursor would move"
                self._place(f"id {whole['i']}", int(whole["r"]), data)
            else:
                self.finished.append(data)

    def _place(self, name: str, lines: int, data: str) -> None:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            shown = Shown(self.row, lines, image.format, image.size)
        self.pictures[name] = shown
        self.drawn.append(shown)
        self.most = max(self.most, len(self.pictures))


def _pairs(text: str, between: str) -> dict[str, str]:
    return {name: value for name, _, value in (one.partition("=") for one in text.split(between))}
