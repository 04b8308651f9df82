"""Messages of a server made fit to be shown: no paths, addresses, tracebacks, nor what the caller wrote.

What is taken out leaves a mark such as `<path>`; it is better to take out too much. A message is hostile too:
each step takes time in proportion to its length.
"""

import re
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 500
"""Characters of a cleaned message."""
_RAW: Final = 8192
"""Characters of a raw message that are looked at."""
_LONGEST_WORD: Final = 200
_SHORTEST_SECRET: Final = 3

_TRACEBACK: Final = "Traceback (most recent call last)"
_MARK: Final = "…"
_PATH: Final = "<path>"
_HOST: Final = "<host>"

_STEPS: Final = (
    (re.compile(r"^[ \t]*File [\"'<][^\n]*", re.MULTILINE), ""),
    (re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>]*"), "<url>"),
    (
        re.compile(r"\b(?:host|hostname|server) ?= ?(?:'[^']*'|\"[^\"]*\"|[^\s,;)]+)", re.IGNORECASE),
        _HOST,
    ),
    # A quoted path may hold blanks.
    (re.compile(r"(['\"`])(?:\.{0,2}[\\/]|~|[A-Za-z]:[\\/])[^'\"`\n]*\1"), _PATH),
)
_WORD: Final = re.compile(r"[^\s'\"`,;()<>{}]+")
_IN_PATH: Final = re.compile(r"(?<![\w.])\.{0,2}/[^/]|\\|\.\./|^~|(?:^|[^A-Za-z])[A-Za-z]:/|\.pyc?(?:$|:)")
_IN_HOST: Final = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\w)"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?!\w)"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4})?::[0-9A-Fa-f]{1,4}(?!\w)"
    r"|\blocalhost\b",
    re.IGNORECASE,
)
_NAME: Final = re.compile(
    r"\W*(?:[A-Za-z0-9_-]+\.)+"
    r"(?:com|net|org|io|co|ai|dev|app|local|localdomain|internal|intranet|lan|cloud|corp|home|svc)"
    r"(?::\d{1,5})?\W*",
    re.IGNORECASE,
)
_UNSEEN: Final = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


def clean(raw: object, *, without: Iterable[str] = (), longest: int = LONGEST) -> str:
    """One line of at most `longest` characters, fit to be shown; "" if `raw` is no string.

    `without`: texts of the caller (a prompt) that must not come back, wherever they stand.
    """
    if not isinstance(raw, str):
        return ""
    message = raw[:_RAW]
    for secret in sorted(set(without), key=len, reverse=True):
        for form in (secret, secret.strip(), repr(secret)[1:-1]):
            if len(form) >= _SHORTEST_SECRET:
                message = message.replace(form, _MARK)
    message = message.partition(_TRACEBACK)[0]
    for pattern, mark in _STEPS:
        message = pattern.sub(mark, message)
    message = _words(message)
    message = _UNSEEN.sub(" ", message).strip()
    return message if len(message) <= longest else message[: longest - 1] + _MARK


def _words(message: str) -> str:
    """The message with each word that tells a place replaced."""
    found = False

    def without_place(match: re.Match[str]) -> str:
        nonlocal found
        word = match[0]
        if len(word) > _LONGEST_WORD:
            return _MARK
        if _IN_PATH.search(word):
            found = True
            return _PATH
        return _HOST if _IN_HOST.search(word) or _NAME.fullmatch(word) else word

    shown = _WORD.sub(without_place, message)
    if not found:
        return shown
    # A path that holds blanks leaves its later parts, without a slash in front: they go too.
    return _WORD.sub(lambda match: _PATH if "/" in match[0].strip("/") else match[0], shown)
