"""A valid PNG of about 500 kB: noise, which nothing compresses."""

import random
import struct
import zlib
from typing import Final

SIDE: Final = 408
"""Pixels; 408 × 408 × 3 bytes are 499 392."""


def noise(seed: int = 0) -> bytes:
    """The same bytes for the same seed."""
    rows = random.Random(seed)
    raw = b"".join(b"\0" + rows.randbytes(SIDE * 3) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(raw, 0))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
