"""An operator's list of terms that no text of a request may have.

Terms and texts are compared as words: Unicode's compatibility forms, case, accents and characters without a width
make no difference, and whatever stands between two words is one gap. There are no regular expressions: a term with
`*` is a plain search, so each look takes time in proportion to the text, whatever a caller writes.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from comfy_api_service.domain.normal import normal

LONGEST_TERM: Final = 200
MOST_TERMS: Final = 20_000
_SHOWN: Final = 10
"""Faults of a list that are told; of more, their number is."""
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters that show nothing, beside those of the categories Cf and Cc and the variation selectors."""
_ACCENTS: Final = ((0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F))
"""Marks that are put on, or struck through, letters of any script; marks that are part of one script stay."""
_SELECTORS: Final = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x180B, 0x180F))


@dataclass(frozen=True, slots=True)
class BlockList:
    words: frozenset[str]
    """Terms of one whole word."""
    pieces: tuple[str, ...]
    """The others, as they stand in a text of ` word word `: without the blank on the side of a `*`."""

    @classmethod
    def read(cls, lines: Iterable[str]) -> Self:
        """A term a line; `#` at the start of a line begins a comment. `*` at the start or the end of a term: the word
        may go on there. Raises `ValueError` with every fault, by the number of its line, and no term.
        """
        words: set[str] = set()
        pieces: dict[str, None] = {}
        faults: list[str] = []
        for number, line in enumerate(lines, 1):
            term = line.strip()
            if not term or term.startswith("#"):
                continue
            fault = _fault_of(term)
            if fault is not None:
                faults.append(f"line {number}: {fault}")
                continue
            known = " ".join(words_of(term))
            if "*" not in term and " " not in known:
                words.add(known)
            else:
                pieces[f"{'' if term[0] == '*' else ' '}{known}{'' if term[-1] == '*' else ' '}"] = None
        if len(words) + len(pieces) > MOST_TERMS:
            faults.append(f"more than {MOST_TERMS} terms")
        if faults:
            more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
            raise ValueError("; ".join(faults[:_SHOWN] + more))
        return cls(frozenset(words), tuple(pieces))

    def has_any(self, text: str) -> bool:
        """Whether a term stands in the text."""
        found = words_of(text)
        if not self.words.isdisjoint(found):
            return True
        if not self.pieces:
            return False
        plain = f" {' '.join(found)} "
        return any(piece in plain for piece in self.pieces)


def _fault_of(term: str) -> str | None:
    if len(term) > LONGEST_TERM:
        return f"longer than {LONGEST_TERM} characters"
    if term[0] == "/" == term[-1] and len(term) > 1:
        return "regular expressions are not taken; a hook can do what terms cannot"
    if "*" in term[1:-1]:
        return "* stands at the start or the end of a term alone"
    if not words_of(term):
        return "has no letter and no digit"
    return None


def words_of(text: str) -> list[str]:
    """The words of a text in the one form in which they are compared."""
    if text.isascii():
        return _ASCII_WORD.findall(text.translate(_ASCII_DROPPED).lower())
    folded = normal("NFKD", normal("NFKD", text).casefold())
    return _word().findall(normal("NFC", folded.translate(_dropped())))


_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
_SPACES: Final = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
_ASCII_DROPPED: Final = {code: None for code in (*range(32), 127) if chr(code) not in _SPACES}


@cache
def _dropped() -> dict[int, None]:
    """Every character that is not looked at; found once, in some 0.1 s."""
    codes = {
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cf", "Cc") and chr(code) not in _SPACES
    }
    for first, last in (*_ACCENTS, *_SELECTORS):
        codes.update(range(first, last + 1))
    codes.update(map(ord, _INVISIBLE))
    return dict.fromkeys(codes)


@cache
def _word() -> re.Pattern[str]:
    """Letters and digits with the marks of their script."""
    marks = "".join(
        re.escape(chr(code))
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me")
    )
    return re.compile(f"(?:[^\\W_]|[{marks}])+")
