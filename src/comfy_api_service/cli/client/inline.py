"""Pictures inside the terminal, for those that say they can: kitty's protocol and iTerm2's.

kitty takes PNG alone. WezTerm speaks both, and clears and redraws reliably in iTerm2's.

Found by environment variables alone: asking the terminal would swallow what is typed meanwhile.
"""

import base64
import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WIDEST: Final = 480
"""Pixels; larger pictures are made smaller first."""
WIDEST_PREVIEW: Final = 256
_CHUNK: Final = 4096
_KITTY: Final = frozenset({"ghostty", "kitty"})
_ITERM: Final = frozenset({"iTerm.app", "WezTerm", "mintty", "vscode"})


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


@dataclass(frozen=True, slots=True)
class Small:
    """A picture that is fit to be sent; `aspect` is its width over its height."""

    data: bytes
    aspect: float

    @property
    def text(self) -> str:
        return base64.standard_b64encode(self.data).decode()


def encoded(picture: bytes, how: Protocol) -> str:
    """What to write to the terminal to show the picture; "" if it is none that can be read."""
    small = _small(picture, WIDEST, "PNG", also=())
    if small is None:
        return ""
    if how is Protocol.ITERM:
        return f"\x1b]1337;File=inline=1;size={len(small.data)}:{small.text}\a\n"
    return "".join(_kitty("a=T,f=100", small.text)) + "\n"


def preview(picture: bytes, how: Protocol) -> Small | None:
    """Sent as it came where that will do; None if it is none that can be read."""
    if how is Protocol.ITERM:
        return _small(picture, WIDEST_PREVIEW, "JPEG", also=("JPEG", "PNG"))
    return _small(picture, WIDEST_PREVIEW, "PNG", also=("PNG",))


def in_place(picture: Small, how: Protocol, *, lines: int, image_id: int) -> str:
    """What to write to show it from the cursor on, `lines` high; the cursor may move, nothing scrolls."""
    if how is Protocol.ITERM:
        about = f"inline=1;size={len(picture.data)};height={lines};width=auto;preserveAspectRatio=1"
        return f"\x1b]1337;File={about};doNotMoveCursor=1:{picture.text}\a"
    return "".join(_kitty(f"a=T,f=100,q=2,i={image_id},p=1,r={lines},C=1", picture.text))


def removed(image_id: int) -> str:
    """For kitty's protocol, whose pictures stay until they are taken away."""
    return f"\x1b_Ga=d,d=I,i={image_id},q=2\x1b\\"


def _kitty(control: str, data: str) -> Iterator[str]:
    for at in range(0, len(data), _CHUNK):
        more = f"m={int(at + _CHUNK < len(data))}"
        yield f"\x1b_G{f'{control},{more}' if at == 0 else more};{data[at : at + _CHUNK]}\x1b\\"


def _small(picture: bytes, widest: int, form: str, *, also: Collection[str]) -> Small | None:
    """In the format `form`, or as it is if it is small enough and in one of `also`."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only for terminals that show it

    try:
        with Image.open(io.BytesIO(picture)) as image:
            as_it_is = image.format in also and max(image.size) <= widest
            if as_it_is:
                image.load()  # what is cut off ends here
                return Small(picture, image.width / image.height)
            image.thumbnail((widest, widest))
            out = io.BytesIO()
            image.convert("RGB").save(out, form)
            return Small(out.getvalue(), image.width / image.height)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
