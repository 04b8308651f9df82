"""Files that callers may bring: each a name, a class, its bytes, and the code of its refusal (None: it is taken).

To add one, add a line. Whatever can be made small is made here; nothing is decoded by making it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageCms
from tests.support.pictures import encoded, jpeg, picture, png, webp

INVALID: Final = "INVALID_INPUT"
OTHER: Final = "UNSUPPORTED_MEDIA_TYPE"


@dataclass(frozen=True, slots=True)
class File:
    name: str
    kind: str
    data: bytes
    refused: str | None = None
    size: tuple[int, int] | None = None
    """Width and height that are told of a file that is taken; None: 32 by 16."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    )


def raw_png(width: int, height: int, pixels: bytes, *before: bytes) -> bytes:
    return (
        header(width, height)
        + b"".join(before)
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def grey_png(width: int, height: int) -> bytes:
    """A sound picture of one bit a pixel, all black: some kilobytes, whatever its size."""
    rows = zlib.compress((b"\0" + bytes((width + 7) // 8)) * height, 9)
    return header(width, height, 1, 0) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_chunk(data: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with another chunk just behind its header."""
    return data[:33] + chunk(name, content) + data[33:]


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with another segment just behind its begin."""
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content + data[2:]


def bomb_webp(width: int, height: int) -> bytes:
    """A lossless header that states such a size, and no picture data to speak of."""
    bits = (width - 1) | (height - 1) << 14
    body = b"VP8L" + struct.pack("<I", 8) + b"\x2f" + struct.pack("<I", bits) + b"\0\0\0"
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bomb_jpeg(width: int, height: int) -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def turned(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), form, exif=exif)


def animation(form: str) -> bytes:
    frames = [picture(seed=seed) for seed in (2, 3)]
    return encoded(picture(), form, save_all=True, append_images=frames, duration=100)


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def hostile() -> Iterator[File]:
    whole, photo, modern, lossless = png(), jpeg(), webp(), webp(lossless=True)
    yield from (
        File(name, "other format", data, OTHER)
        for name, data in (
            ("GIF", encoded(picture(), "GIF")),
            ("animated GIF", animation("GIF")),
            ("BMP", encoded(picture(), "BMP")),
            ("TIFF", encoded(picture(), "TIFF")),
            ("ICO", encoded(picture(), "ICO")),
            ("PPM", encoded(picture(), "PPM")),
            ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)),
            ("AVIF", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100)),
            ("PDF", b"%PDF-1.7\n1 0 obj\n"),
            ("ZIP", b"PK\x03\x04" + bytes(100)),
            ("PostScript", b"%!PS-Adobe-3.0\n(x) run"),
            ("ELF", b"\x7fELF" + bytes(100)),
            ("MP4", b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41"),
            ("text", b"just words"),
            ("zeros", bytes(1000)),
            ("WAV", b"RIFF\x24\0\0\0WAVEfmt "),
        )
    )
    yield from (
        File(name, "markup", data, OTHER)
        for name, data in (
            ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
            (
                "SVG with a declaration",
                b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            ),
            ("HTML", b"<!doctype html><script>alert(1)</script>"),
            ("SVG behind white space", b"\n\n   <svg/>"),
            ("MVG", b"push graphic-context\nviewbox 0 0 1 1\nimage over 0,0 0,0 'https://x/'"),
        )
    )
    yield from (
        File(name, "polyglot", data, INVALID if taken_for_a_picture else OTHER)
        for name, data, taken_for_a_picture in (
            ("PNG and ZIP", whole + b"PK\x03\x04" + bytes(60), True),
            ("PNG and HTML", whole + b"<html><script>alert(1)</script>", True),
            ("PNG and PHP", whole + b"xx<?php system($_GET[0]); ?>", True),
            ("PNG and PDF", whole + b"\n%PDF-1.4\n", True),
            ("JPEG and ZIP", photo + bytes(50) + b"PK\x03\x04", True),
            ("JPEG and a script", photo + b"#!/bin/sh\nid\n", True),
            ("JPEG and a program", photo + b"MZ" + bytes(100), True),
            ("JPEG and ELF", photo + bytes(70_000) + b"\x7fELF", True),
            ("WebP and SVG", modern + b"<svg onload='x'>", True),
            ("WebP and RAR", modern + b"Rar!\x1a\x07\x00", True),
            ("HTML and PNG", b"<html>" + whole, False),
            ("ZIP and JPEG", b"PK\x03\x04" + photo, False),
            ("GIF and JavaScript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", False),
            ("a name of PNG, a body of JPEG", whole[:8] + photo, True),
        )
    )
    yield from (
        File(name, "damaged", data, INVALID)
        for name, data in (
            ("nothing", b""),
            ("PNG cut in its data", whole[:-30]),
            ("PNG cut before its end", whole[:-12]),
            ("PNG of its signature", whole[:8]),
            ("PNG with a wrong sum", whole[:50] + bytes((whole[50] ^ 1,)) + whole[51:]),
            (
                "PNG whose data are no deflate",
                header(32, 16) + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""),
            ),
            ("PNG without data", header(32, 16) + chunk(b"IEND", b"")),
            ("PNG of size zero", raw_png(0, 16, bytes(97 * 16))),
            ("PNG with a chunk that must be known", with_chunk(whole, b"XxXx", b"x")),
            ("PNG of an impossible depth", header(32, 16, 3, 2) + whole[33:]),
            ("JPEG cut", photo[:-40]),
            ("JPEG without an end", photo[:-2]),
            ("JPEG of its begin", photo[:4]),
            ("JPEG without tables", with_segment(photo[:2] + b"\xff\xd9", 0xE0, b"JFIF\0")),
            ("JPEG with two headers", photo[:2] + photo[2:-2] + photo[2:]),
            ("WebP cut", modern[:-10]),
            ("WebP that states too much", modern[:4] + struct.pack("<I", 1 << 30) + modern[8:]),
            ("WebP without a picture", b"RIFF\x04\0\0\0WEBP"),
            (
                "WebP whose data are nonsense",
                lossless[:26] + b"\xff" * (len(lossless) - 26),
            ),
        )
    )
    yield from (
        File(name, "bomb", data, INVALID)
        for name, data in (
            ("PNG of 2 gigapixels", header(46_341, 46_341) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")),
            ("PNG of 64 megapixels and a row, whole", grey_png(8000, 8001)),
            (
                "PNG of 64 megapixels and a row",
                header(8000, 8001) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
            ),
            (
                "PNG of the greatest size",
                header(0x7FFFFFFF, 0x7FFFFFFF) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
            ),
            ("PNG one pixel high", header(0x7FFFFFFF, 1) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")),
            (
                "PNG with a bomb of a profile",
                with_chunk(png(), b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 26), 9)),
            ),
            ("JPEG of 4 gigapixels", bomb_jpeg(65_500, 65_500)),
            ("JPEG of a thousand scans", scans(1000)),
            ("WebP of 268 megapixels", bomb_webp(16_384, 16_384)),
            ("PNG of empty chunks", header(32, 16) + chunk(b"tEXt", b"") * 200_000),
        )
    )
    yield from (
        File(name, "several frames", data, INVALID)
        for name, data in (
            ("APNG", animation("PNG")),
            ("animated WebP", animation("WEBP")),
            ("APNG of thousands of frames", with_chunk(png(), b"acTL", struct.pack(">II", 5000, 0))),
        )
    )


def legitimate() -> Iterator[File]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "the description", "the artist"
    photo = jpeg()
    yield from (
        File(name, "picture", data)
        for name, data in (
            ("PNG", png()),
            ("PNG, interlaced as Photoshop does not", png(optimize=True)),
            ("PNG with transparency", encoded(picture(mode="RGBA"), "PNG")),
            ("PNG of grey", encoded(picture(mode="L"), "PNG")),
            ("PNG of grey and transparency", encoded(picture(mode="LA"), "PNG")),
            ("PNG of 16 bits", encoded(picture(mode="L").convert("I;16"), "PNG")),
            ("PNG with a palette", encoded(picture().quantize(16), "PNG")),
            ("PNG of one bit", encoded(picture(mode="1"), "PNG")),
            ("PNG with a profile", png(icc_profile=profile)),
            ("PNG with Exif", png(exif=exif)),
            ("PNG with a private chunk", with_chunk(png(), b"prVt", b"hello")),
            ("PNG followed by zeros", png() + bytes(500)),
            ("APNG of one frame, which is a picture", png()),
            ("JPEG", photo),
            ("JPEG, progressive", jpeg(progressive=True)),
            ("JPEG of grey", encoded(picture(mode="L"), "JPEG")),
            ("JPEG of CMYK", encoded(picture(mode="CMYK"), "JPEG")),
            ("JPEG of the least quality", jpeg(quality=1)),
            ("JPEG without subsampling", jpeg(subsampling=0)),
            ("JPEG with a profile and Exif", jpeg(icc_profile=profile, exif=exif)),
            ("JPEG with a comment", jpeg(comment=b"<script>alert(1)</script>")),
            ("JPEG of a telephone, with its film", photo + b"\0\0\0\x18ftypmp42" + bytes(5000)),
            ("JPEG with padding", photo[:2] + b"\xff\xff" + photo[2:]),
            ("WebP", webp()),
            ("WebP without loss", webp(lossless=True)),
            ("WebP with transparency", encoded(picture(mode="RGBA"), "WEBP")),
            ("WebP with a profile and Exif", webp(icc_profile=profile, exif=exif)),
        )
    )
    for form in ("PNG", "JPEG", "WEBP"):
        yield File(f"{form}, turned", "turned", turned(form, 6), size=(16, 32))
        yield File(f"{form}, upside down", "turned", turned(form, 3))
    yield File("PNG of one pixel", "size", png(size=(1, 1)), size=(1, 1))
    yield File(
        "JPEG of 30 megapixels", "size", encoded(Image.new("L", (6000, 5000)), "JPEG"), size=(6000, 5000)
    )


FILES: Final = (*hostile(), *legitimate())
