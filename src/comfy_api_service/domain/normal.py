"""Unicode's normal forms, in time that grows with the text.

Python sorts the marks behind a letter by insertion: 100 000 of them in a row take a quarter of a minute.
"""

import re
import sys
import unicodedata
from functools import cache
from typing import Final, Literal

_MARKS: Final = 30
"""Marks behind one letter that are kept; no language has more (Unicode Standard Annex 15, stream-safe text)."""


def normal(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """The text in this form, without the marks that stand behind thirty others."""
    return unicodedata.normalize(form, text if text.isascii() else _too_many().sub(r"\1", text))


@cache
def _too_many() -> re.Pattern[str]:
    marks = "".join(
        re.escape(chr(code)) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))
    )
    return re.compile(f"([{marks}]{{{_MARKS}}})[{marks}]+")
