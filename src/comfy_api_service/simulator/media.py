"""Tiny mp4 and webm files, box by box: there is no encoder here.

Structure, size, duration and frame count are right, so that magic bytes and container parsers accept them;
the samples themselves are empty.
"""

import struct


def mp4(size: tuple[int, int], frames: int, fps: float, comment: bytes = b"") -> bytes:
    """An ISO base media file with one H.264 track of empty samples."""
    scale = 1000
    each = max(1, round(scale / max(fps, 0.001)))
    length = each * frames
    sample = struct.pack(">IB", 1, 0x0C)
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2avc1mp41")
    data = _box(b"mdat", sample * frames)
    offset = len(head) + 8
    table = _full(b"stsd", struct.pack(">I", 1) + _avc1(size))
    table += _full(b"stts", struct.pack(">III", 1, frames, each))
    table += _full(b"stsc", struct.pack(">IIII", 1, 1, frames, 1))
    table += _full(b"stsz", struct.pack(">II", len(sample), frames))
    table += _full(b"stco", struct.pack(">II", 1, offset))
    reference = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))
    information = _box(b"minf", _full(b"vmhd", bytes(8), flags=1) + reference + _box(b"stbl", table))
    handler = _full(b"hdlr", bytes(4) + b"vide" + bytes(12) + b"VideoHandler\0")
    media_head = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, scale, length, 0x55C4, 0))
    media = _box(b"mdia", media_head + handler + information)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    track_head = struct.pack(">IIIII", 0, 0, 1, 0, length) + bytes(16) + matrix
    track_head += struct.pack(">II", size[0] << 16, size[1] << 16)
    track = _box(b"trak", _full(b"tkhd", track_head, flags=3) + media)
    movie_head = struct.pack(">IIII", 0, 0, scale, length) + struct.pack(">IH", 0x10000, 0x0100) + bytes(10)
    movie_head += matrix + bytes(24) + struct.pack(">I", 2)
    movie = _box(b"moov", _full(b"mvhd", movie_head) + track + _box(b"udta", _box(b"cmnt", comment)))
    return head + data + movie


def _avc1(size: tuple[int, int]) -> bytes:
    entry = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", *size)
    entry += struct.pack(">III", 0x480000, 0x480000, 0) + struct.pack(">H", 1) + bytes(32)
    entry += struct.pack(">Hh", 24, -1)
    sets = struct.pack(">BBBBB", 1, 0x42, 0xC0, 0x1E, 0xFF)
    sequence, picture = bytes.fromhex("6742c01e8c8d40"), bytes.fromhex("68ce3c80")
    sets += b"\xe1" + struct.pack(">H", len(sequence)) + sequence
    sets += b"\x01" + struct.pack(">H", len(picture)) + picture
    return _box(b"avc1", entry + _box(b"avcC", sets))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _full(kind: bytes, content: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags) + content)


def webm(size: tuple[int, int], frames: int, fps: float, codec: str, comment: bytes = b"") -> bytes:
    """A Matroska file of type webm with one video track of empty blocks."""
    each = 1000 / max(fps, 0.001)
    head = _element("1A45DFA3", _element("4286", b"\1") + _element("42F7", b"\1") + _element("42F2", b"\4")
                    + _element("42F3", b"\x08") + _element("4282", b"webm") + _element("4287", b"\4")
                    + _element("4285", b"\2"))  # fmt: skip
    info = _element("2AD7B1", _number(1_000_000)) + _element("4489", struct.pack(">d", each * frames))
    info += _element("4D80", b"simulator") + _element("5741", b"simulator")
    picture = _element("B0", _number(size[0])) + _element("BA", _number(size[1]))
    track = _element("D7", b"\1") + _element("73C5", b"\1") + _element("83", b"\1")
    track += _element("86", codec.encode()) + _element("E0", picture)
    tag = _element("67C8", _element("45A3", b"PROMPT") + _element("4487", comment))
    tags = _element("1254C367", _element("7373", _element("63C0", b"") + tag))
    blocks = b"".join(
        _element("A3", b"\x81" + struct.pack(">hB", min(round(each * i), 32_000), 0x80) + b"\0")
        for i in range(frames)
    )
    cluster = _element("1F43B675", _element("E7", b"\0") + blocks)
    body = _element("1549A966", info) + _element("1654AE6B", _element("AE", track)) + tags + cluster
    return head + _element("18538067", body)


def _element(name: str, content: bytes) -> bytes:
    size = len(content)
    shown = bytes([size | 0x80]) if size < 127 else struct.pack(">Q", size | 1 << 56)
    return bytes.fromhex(name) + shown + content


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
