"""Texts of widgets in which the page takes out comments, and chooses words at random.

Read in time that grows with the text, whatever a stranger writes.
"""

import re
from typing import Final

MAX_TEXT: Final = 100_000
"""Characters of one text."""
_BEGIN: Final = re.compile(r"/[*/]")
_LINE_END: Final = re.compile(r"[\n\r\u2028\u2029]")
_TOKENS: Final = re.compile(r"\\.|[\\{]", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\([{}|])")


def without_comments(text: str) -> str:
    r"""As `/\*.*?\*/|//[^\n\r\u2028\u2029]*` would find them, which looks for each end through all of the text."""
    last = text.rfind("*/")
    kept: list[str] = []
    start = look = 0
    while (begin := _BEGIN.search(text, look)) is not None:
        if begin[0] == "//":
            line_end = _LINE_END.search(text, begin.end())
            end = len(text) if line_end is None else line_end.start()
        elif begin.end() <= last:
            end = text.find("*/", begin.end()) + 2
        else:  # is never closed, so it is no comment; its star may stand before one
            look = begin.start() + 1
            continue
        kept.append(text[start : begin.start()])
        start = look = end
    return "".join(kept) + text[start:]


def has_choices(text: str) -> bool:
    """Whether there is a brace, or a last backslash, by which the page chooses words at random."""
    return any(token[0] in ("{", "\\") for token in _TOKENS.finditer(text))


def unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
