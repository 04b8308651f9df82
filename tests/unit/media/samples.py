"""Files of every kind, each with the canary in every place that its format has for telling something."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

CANARY = "CANARYSECRET"
WORD = CANARY.encode()


@cache
def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def picture(mode: str = "RGB", size: tuple[int, int] = (37, 23)) -> Image.Image:
    """A picture with much detail, the same each time."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    width, height = size
    data = bytes(((i * 2654435761) >> 13) & 0xFF for i in range(width * height * bands))
    return Image.frombytes(mode, size, data)


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def exif(orientation: int | None = None) -> bytes:
    block = Image.Exif()
    block[0x010E] = CANARY
    block[0x9C9C] = CANARY.encode("utf-16-le") + WORD
    if orientation is not None:
        block[0x0112] = orientation
    return block.tobytes()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG_METADATA: Mapping[bytes, bytes] = {
    b"tEXt": b"prompt\0" + WORD,
    b"zTXt": b"workflow\0\0" + zlib.compress(WORD * 9, 0),
    b"iTXt": b"parameters\0\0\0\0\0" + WORD,
    b"eXIf": b"MM\0*" + WORD,
    b"tIME": b"\x07\xea\x01\x01\x01\x01\x01",
    b"sPLT": b"palette" + WORD,
    b"comf": b"prompt\0" + WORD,
    b"prIv": WORD,
}


def after_header(png: bytes, chunks: bytes) -> bytes:
    return png[:33] + chunks + png[33:]


@cache
def png() -> bytes:
    info = PngInfo()
    info.add_text("prompt", CANARY)
    info.add(b"comf", b"workflow\0" + WORD, after_idat=True)
    plain = saved(picture("RGBA"), "PNG", pnginfo=info, exif=exif(), icc_profile=icc(), dpi=(72, 72))
    told = after_header(plain, b"".join(png_chunk(*item) for item in PNG_METADATA.items()))
    return told + b"PK\x03\x04" + WORD


def apng() -> bytes:
    info = PngInfo()
    info.add_text("prompt", CANARY * 1000)
    info.add(b"comf", b"prompt\0" + WORD, after_idat=True)
    frames = [picture("RGB", (37, 23)), picture("L", (37, 23)).convert("RGB")]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=80, pnginfo=info)


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2) + data


def jpeg(orientation: int | None = None, **options: object) -> bytes:
    plain = saved(
        picture("RGB", (64, 48)), "JPEG", exif=exif(orientation), icc_profile=icc(), comment=WORD, **options
    )
    told = b"".join(
        (
            jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + WORD),
            jpeg_segment(0xED, b"Photoshop 3.0\0" + WORD),
            jpeg_segment(0xE0, b"JFXX\0\x10" + WORD),
            jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01" + WORD),
            jpeg_segment(0xE2, b"FPXR\0" + WORD),
            jpeg_segment(0xEB, WORD),
            jpeg_segment(0xFE, WORD),
        )
    )
    return plain[:20] + told + plain[20:] + b"<?php" + WORD


def webp(*, lossless: bool = False) -> bytes:
    plain = saved(
        picture("RGBA", (37, 23)), "WEBP", lossless=lossless, exif=exif(), xmp=WORD, icc_profile=icc()
    )
    return with_webp_chunk(plain, b"ABCD", WORD) + WORD


def with_webp_chunk(plain: bytes, name: bytes, data: bytes) -> bytes:
    told = plain + name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(told) - 8) + told[8:]


def animated_webp() -> bytes:
    frames = [picture("RGB", (37, 23)), picture("L", (37, 23)).convert("RGB")]
    return saved(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=80, exif=exif(), xmp=WORD
    )


def gif(*, frames: int = 1) -> bytes:
    first = picture("L", (37, 23))
    rest = [first.rotate(90 * n) for n in range(1, frames)]
    plain = saved(first, "GIF", save_all=True, append_images=rest, loop=0, comment=WORD)
    told = (
        b"!\xfe"
        + bytes((len(WORD),))
        + WORD
        + b"\0"
        + b"!\xff\x0bXMP DataXMP"
        + bytes((len(WORD),))
        + WORD
        + b"\0"
    )
    return plain[:-1] + told + b";" + WORD


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def mp4(brand: bytes = b"isom") -> bytes:
    head = bytes(76) + struct.pack(">II", 640 << 16, 480 << 16)
    told = box(b"udta", box(b"meta", bytes(4), box(b"ilst", WORD)))
    track = box(b"trak", box(b"tkhd", head), box(b"mdia", b"m" * 40), told)
    movie = box(b"moov", box(b"mvhd", bytes(100)), track, told, box(b"meta", WORD), box(b"Xtra", WORD))
    return b"".join(
        (
            box(b"ftyp", brand, bytes(4), b"isom"),
            box(b"free", WORD),
            struct.pack(">I4sQ", 1, b"mdat", 16 + 300) + bytes(range(100)) * 3,
            movie,
            box(b"uuid", bytes(16), WORD),
            box(b"meta", WORD),
        )
    )


def element(name: int, data: bytes, width: int = 4) -> bytes:
    size = (1 << 7 * width | len(data)).to_bytes(width)
    return name.to_bytes((name.bit_length() + 7) // 8) + size + data


def webm(kind: bytes = b"webm", *, live: bool = False) -> bytes:
    video = element(0xE0, element(0xB0, b"\x02\x80", 1) + element(0xBA, b"\x01\xe0", 1), 1)
    tags = element(0x1254C367, element(0x7373, WORD))
    content = b"".join(
        (
            element(0x114D9B74, b"seek" * 4),
            element(0xEC, WORD, 1),
            element(
                0x1549A966, element(0xBF, b"sum!", 1) + element(0x7BA9, WORD, 1) + element(0x4D80, b"muxer")
            ),
            element(0x1654AE6B, element(0xAE, element(0x536E, WORD, 1) + video)),
            element(0x1043A770, WORD),
            element(0x1941A469, WORD, 8),
            tags,
            b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 + element(0xE7, b"\0", 1) + element(0xA3, b"block" * 9)
            if live
            else element(0x1F43B675, element(0xE7, b"\0", 1) + element(0xA3, b"block" * 9)),
            element(0x1C53BB6B, b"cues"),
            element(0x1254C367, b"", 1),
            tags,
        )
    )
    head = element(0x1A45DFA3, element(0x4282, kind, 1), 1)
    if live:
        return head + b"\x18\x53\x80\x67\xff" + content
    return head + element(0x18538067, content, 8)


def flac() -> bytes:
    def block(kind: int, data: bytes) -> bytes:
        return bytes((kind,)) + len(data).to_bytes(3) + data

    blocks = block(0, bytes(34)), block(4, WORD), block(3, bytes(36)), block(6, WORD), block(0x81, bytes(9))
    return b"fLaC" + b"".join(blocks) + b"\xff\xf8" + bytes(range(200))


def mp3(*, tagged: bool = True) -> bytes:
    sound = (b"\xff\xfb\x90\x64" + bytes(range(250))) * 3
    if not tagged:
        return sound
    tag = b"ID3\x04\0\0" + bytes((0, 0, 8, 0)) + WORD.ljust(1024, b"\0")
    return tag + sound + b"TAG" + WORD.ljust(125, b"\0")


def wav() -> bytes:
    def part(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    body = b"".join(
        (
            part(b"fmt ", bytes(16)),
            part(b"LIST", b"INFO" + WORD + b"x"),
            part(b"data", bytes(range(101))),
            part(b"id3 ", WORD),
        )
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def ogg_crc(page: bytes) -> int:
    """The sum bit by bit, as the RFC says it: not the way of the code under test."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def ogg_page(number: int, flags: int, lacing: bytes, body: bytes) -> bytes:
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, 77, number, 0, len(lacing)) + lacing
    page = head + body
    return page[:22] + struct.pack("<I", ogg_crc(page)) + page[26:]


@cache
def ogg(kind: str = "opus") -> bytes:
    """Comments that begin on the second page and end on the third."""
    first = {"opus": b"OpusHead" + bytes(11), "vorbis": b"\x01vorbis" + bytes(23)}[kind]
    start = {"opus": b"OpusTags", "vorbis": b"\x03vorbis"}[kind]
    comments = start + struct.pack("<I", 12) + WORD + struct.pack("<I", 1) + WORD * 50
    tail = comments[510:]
    setup = b"\x05vorbis" + bytes(30) if kind == "vorbis" else b""
    third = bytes((len(tail) - len(tail) % 255 and 255, len(tail) % 255)) + (
        bytes((len(setup),)) if setup else b""
    )
    return b"".join(
        (
            ogg_page(0, 2, bytes((len(first),)), first),
            ogg_page(1, 0, b"\xff\xff", comments[:510]),
            ogg_page(2, 1, third[third[0] == 0 :], tail + setup),
            ogg_page(3, 4, b"\x64", bytes(range(100))),
        )
    )


PICTURES: Mapping[str, Callable[[], bytes]] = {
    "png": png,
    "apng": apng,
    "jpeg": jpeg,
    "progressive jpeg": lambda: jpeg(progressive=True),
    "webp": webp,
    "lossless webp": lambda: webp(lossless=True),
    "animated webp": animated_webp,
    "gif": gif,
    "animated gif": lambda: gif(frames=3),
}
OTHERS: Mapping[str, Callable[[], bytes]] = {
    "mp4": mp4,
    "webm": webm,
    "live webm": lambda: webm(live=True),
    "flac": flac,
    "mp3": mp3,
    "wav": wav,
    "opus": ogg,
    "vorbis": lambda: ogg("vorbis"),
}
ALL: Mapping[str, Callable[[], bytes]] = {**PICTURES, **OTHERS}
