"""Messages of a server made fit to be shown: no paths, addresses, tracebacks, nor what the caller wrote.

What is taken out leaves a mark such as `<path>`; it is better to take out too much.
"""

import re
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 500
"""Characters of a cleaned message."""
_RAW: Final = 16_384
"""Characters of a raw message that are looked at."""

_MARK: Final = "…"
_SECRET_SHORTEST: Final = 3

_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
_STEPS: Final = (
    (re.compile(r"^\s*File [\"'<][^\n]*(?:\n {4,}[^\n]*)?", re.MULTILINE), " "),
    (re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s'\"<>]*"), "<url>"),
    (re.compile(r"\b(?:host|hostname|server)\s*=\s*(?:'[^']*'|\"[^\"]*\"|[^\s,;)]+)", re.IGNORECASE), "<host>"),
    # A quoted path may hold blanks.
    (re.compile(r"(['\"`])(?:~?[\\/]|[A-Za-z]:[\\/])[^'\"`\n]*\1"), "<path>"),
    (re.compile(r"[^\s'\"`,;()<>]*\\[^'\"`,;()<>\n]*\\?[^\s'\"`,;()<>]*"), "<path>"),
    (re.compile(r"(?<![\w.])[A-Za-z]:/[^\s'\"`,;()<>]*"), "<path>"),
    # A path without quotes ends at a blank, unless the next word goes on with a slash.
    (
        re.compile(
            r"(?<![\w<])(?:~\w*|\.{1,3})?/[^\s'\"`,;()<>/][^\s'\"`,;()<>]*(?: [^\s'\"`,;()<>/]+/[^\s'\"`,;()<>]*)*"
        ),
        "<path>",
    ),
    (re.compile(r"[^\s'\"`,;()<>]*\.\./[^\s'\"`,;()<>]*"), "<path>"),
    (re.compile(r"[^\s'\"`,;()<>]*\.pyc?\b(?::\d+)?"), "<path>"),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.])"), "<host>"),
    (re.compile(r"\[?(?<![\w:])(?:(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}|::[0-9A-Fa-f]{1,4})(?![\w:])\]?(?::\d{1,5})?"), "<host>"),
    (re.compile(r"\blocalhost\b(?::\d{1,5})?", re.IGNORECASE), "<host>"),
    (
        re.compile(
            r"\b(?:[A-Za-z0-9_-]+\.)+(?:com|net|org|io|co|ai|dev|app|local|localdomain|internal|lan|cloud|corp|home|svc)"
            r"\b(?::\d{1,5})?",
            re.IGNORECASE,
        ),
        "<host>",
    ),
)  # fmt: skip
_NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_BLANKS: Final = re.compile(r"\s+")


def clean(raw: object, *, without: Iterable[str] = (), longest: int = LONGEST) -> str:
    """One line of at most `longest` characters, fit to be shown; "" if `raw` is no string.

    `without`: texts of the caller (a prompt) that must not come back, wherever they stand.
    """
    if not isinstance(raw, str):
        return ""
    message = raw[:_RAW]
    for secret in sorted(set(without), key=len, reverse=True):
        for form in {secret, secret.strip(), repr(secret)[1:-1]}:
            if len(form) >= _SECRET_SHORTEST:
                message = message.replace(form, _MARK)
    message = _TRACEBACK.sub("", message)
    for pattern, mark in _STEPS:
        message = pattern.sub(mark, message)
    message = _BLANKS.sub(" ", _NOT_SHOWN.sub(" ", message)).strip()
    return message if len(message) <= longest else message[: longest - 1] + "…"
