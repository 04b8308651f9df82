"""Pictures inside the terminal, for those that say they can: kitty's protocol and iTerm2's.

Found by environment variables alone: asking the terminal would swallow what is typed meanwhile.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

WIDEST: Final = 480
"""Pixels; larger pictures are made smaller first."""
_CHUNK: Final = 4096
_KITTY: Final = frozenset({"ghostty", "WezTerm", "kitty"})
_ITERM: Final = frozenset({"iTerm.app", "mintty", "vscode"})


class Protocol(StrEnum):
    KITTY = "kitty"
    ITERM = "iterm"


def protocol(environment: Mapping[str, str], *, is_terminal: bool) -> Protocol | None:
    """How this terminal takes pictures; None if it does not, or does not say so."""
    term = environment.get("TERM", "")
    if not is_terminal or "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    program = environment.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in environment or term in {"xterm-kitty", "xterm-ghostty"} or program in _KITTY:
        return Protocol.KITTY
    if program in _ITERM or environment.get("LC_TERMINAL") == "iTerm2":
        return Protocol.ITERM
    return None


def encoded(picture: bytes, how: Protocol) -> str:
    """What to write to the terminal to show the picture; "" if it is none that can be read."""
    small = _small(picture)
    if small is None:
        return ""
    data = base64.standard_b64encode(small).decode()
    if how is Protocol.ITERM:
        return f"\x1b]1337;File=inline=1;size={len(small)}:{data}\a\n"
    return "".join(_kitty(data)) + "\n"


def _kitty(data: str) -> Iterator[str]:
    for at in range(0, len(data), _CHUNK):
        more = int(at + _CHUNK < len(data))
        control = f"a=T,f=100,m={more}" if at == 0 else f"m={more}"
        yield f"\x1b_G{control};{data[at : at + _CHUNK]}\x1b\\"


def _small(picture: bytes) -> bytes | None:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only for terminals that show it

    try:
        with Image.open(io.BytesIO(picture)) as image:
            image.thumbnail((WIDEST, WIDEST))
            out = io.BytesIO()
            image.convert("RGB").save(out, "PNG")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    return out.getvalue()
