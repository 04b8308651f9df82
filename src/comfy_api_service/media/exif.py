"""The one Exif block that this service writes, and the one thing that it reads from others: the orientation.

A block carries what `embed` says: all of it as JSON in `ImageDescription` (readable by any viewer), and the
entry named `parameters` also in `UserComment`, where other tools of this field look for it.
"""

import json
import struct
from collections.abc import Mapping
from typing import Final

PARAMETERS: Final = "parameters"
"""The entry that goes into `UserComment`, and the keyword that PNG tools look for."""
UPRIGHT: Final = 1

_DESCRIPTION: Final = 0x010E
_ORIENTATION: Final = 0x0112
_EXIF_PART: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_ASCII, _SHORT, _LONG, _UNDEFINED = 2, 3, 4, 7
_MOST_ENTRIES: Final = 512


def build(embed: Mapping[str, str] | None, orientation: int = UPRIGHT, *, limit: int | None = None) -> bytes:
    """A TIFF block, or b"" if there is nothing to say; what exceeds `limit` bytes is left out."""
    texts = dict(embed or {})
    described = json.dumps(texts, ensure_ascii=True).encode() + b"\0" if texts else b""
    comment = b""
    if PARAMETERS in texts:
        comment = b"UNICODE\0" + texts[PARAMETERS].encode("utf-16-be", errors="replace")
    for description, user_comment in ((described, comment), (described, b""), (b"", comment), (b"", b"")):
        block = _block(description, user_comment, orientation)
        if limit is None or len(block) <= limit:
            return block
    return b""


def _block(description: bytes, comment: bytes, orientation: int) -> bytes:
    entries = []
    if description:
        entries.append((_DESCRIPTION, _ASCII, len(description), description))
    if orientation != UPRIGHT:
        entries.append((_ORIENTATION, _SHORT, 1, struct.pack(">HH", orientation, 0)))
    if comment:
        entries.append((_EXIF_PART, _LONG, 1, b"\0\0\0\0"))
    if not entries:
        return b""
    at = 8
    if comment:
        first = _directory(entries, at)
        entries[-1] = (_EXIF_PART, _LONG, 1, struct.pack(">I", at + len(first)))
        second = _directory([(_USER_COMMENT, _UNDEFINED, len(comment), comment)], at + len(first))
        return b"MM\0*\0\0\0\x08" + _directory(entries, at) + second
    return b"MM\0*\0\0\0\x08" + _directory(entries, at)


def _directory(entries: list[tuple[int, int, int, bytes]], at: int) -> bytes:
    """A TIFF directory that stands at offset `at`, with the values that do not fit in it behind it."""
    behind = at + 2 + 12 * len(entries) + 4
    table, values = [struct.pack(">H", len(entries))], []
    for tag, kind, count, value in entries:
        if len(value) <= 4:
            table.append(struct.pack(">HHI4s", tag, kind, count, value))
        else:
            table.append(struct.pack(">HHII", tag, kind, count, behind))
            padded = value + b"\0" * (len(value) % 2)
            values.append(padded)
            behind += len(padded)
    return b"".join((*table, b"\0\0\0\0", *values))


def orientation_of(block: bytes) -> int:
    """The orientation (1…8) that a TIFF block tells, 1 if it tells none or makes no sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        for entry in range(min(count, _MOST_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, at + 2 + 12 * entry)
            if tag == _ORIENTATION and kind == _SHORT:
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
