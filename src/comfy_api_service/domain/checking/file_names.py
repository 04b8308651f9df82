"""Names of files in graphs: which inputs hold them, what a caller may write there, and the tricks.

ComfyUI joins such a name to a folder and opens it. Servers before 0.28 open what `../` leads to; an absolute
path, a drive, or an ending ` [output]` leads elsewhere on all of them.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from comfy_api_service.domain.normal import normal

FILE_INPUTS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("LoadImage", "image"): "image",
        ("LoadImageMask", "image"): "image",
        ("LoadImageOutput", "image"): "output",
        ("WebcamCapture", "image"): "webcam",
        ("LoadVideo", "file"): "video",
        ("LoadAudio", "audio"): "audio",
        ("RecordAudio", "audio"): "audio",
        ("LoadLatent", "latent"): "latent",
        ("Load3D", "model_file"): "model",
        ("Load3D", "image"): "recording",
        ("Load3DAnimation", "model_file"): "model",
        ("Load3DAnimation", "image"): "recording",
    }
)
"""(class, input) → kind of the file it opens, of ComfyUI's own loaders; of others the inventory tells."""

BRINGABLE: Final = frozenset({"image"})
"""Kinds of files that callers can bring."""

_CROCKFORD: Final = "[0-9A-HJKMNP-TV-Z]{26}"
_REFERENCE: Final = re.compile(
    rf"upl_{_CROCKFORD}"
    rf"|job_{_CROCKFORD}(?:/(?:0|[1-9][0-9]{{0,3}}))?"
    r"|https://[^\s\x00-\x20\x7f\\\"<>`{|}^]{1,2040}"
)
_DATA: Final = re.compile(r"data:image/(?:png|jpeg|webp);base64,")
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LOOKS: Final = re.compile(r"(?:upl_|job_|[A-Za-z][A-Za-z0-9+.-]*:)")
"""What is no plain name, whether it is a reference or a bad one."""

_ANNOTATION: Final = re.compile(r"\[\s*(?:input|output|temp)\s*\]\s*$", re.IGNORECASE)
_ENCODED: Final = re.compile(r"%(?:25)*(?:2e|2f|5c|00|0a|0d|7e|c0|e0)", re.IGNORECASE)
_ROOTED: Final = re.compile(r"\s*(?:[/\\~]|[A-Za-z]:)")
_SEPARATOR: Final = re.compile(r"[/\\]")
_SLASHES: Final = str.maketrans(
    dict.fromkeys("\u2044\u2215\u29f8\uff0f", "/") | dict.fromkeys("\u2216\u29f5\ufe68\uff3c", "\\")
)
_PATH_LIKE: Final = re.compile(r"file|path|folder|directory|(?<![a-z])dir(?![a-z])", re.IGNORECASE)
_TEXT_LIKE: Final = re.compile(r"text|prompt|caption|string", re.IGNORECASE)
_NAMED_IN_TEXT: Final = re.compile(r"(?:embedding:|<(?:lora|lyco|hypernet):)([^\s,()<>|]+)", re.IGNORECASE)


def is_reference(value: str) -> bool:
    """True for an upload, a job's result, a picture in a data URL or an https URL, by its form."""
    if (head := _DATA.match(value)) is not None:
        body = value[head.end() :].encode("ascii", "replace")
        return bool(body) and body.translate(None, _BASE64) in (b"", b"=", b"==")
    return _REFERENCE.fullmatch(value) is not None


def is_plain_name(value: str) -> bool:
    """True for a name below the folder it belongs to: no trick, no backslash, no address, and something in it."""
    return bool(value.strip()) and not _LOOKS.match(value) and "\\" not in value and not is_trick(value)


def is_trick(name: str) -> bool:
    """True if the name leads, or tries to lead, out of the folder it belongs to.

    Looked at as it is and as Unicode's compatible forms would have it. A backslash within is a separator on
    some servers, and no trick by itself.
    """
    return _leads_out(name) or (not name.isascii() and _leads_out(_folded(name)))


def named_in_text(text: str) -> Sequence[str]:
    """The files that a prompt names: `embedding:name`, `<lora:name:1>`."""
    return _NAMED_IN_TEXT.findall(text) if ":" in text else ()


def may_be_path(class_name: str, input_name: str) -> bool:
    """True if an input of a class that is not known here sounds as if it held a path.

    Not the prefixes of what is saved: the service sets those itself.
    """
    if "prefix" in input_name.lower():
        return False
    return _PATH_LIKE.search(input_name) is not None or (
        "Load" in class_name and _TEXT_LIKE.search(input_name) is None
    )


def _leads_out(name: str) -> bool:
    if not name.isprintable() and any(
        unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name
    ):
        return True
    if _ROOTED.match(name) or _ANNOTATION.search(name) or _ENCODED.search(name):
        return True
    return any(part and not part.strip(". ") for part in _SEPARATOR.split(name))


def _folded(name: str) -> str:
    return normal("NFKC", name.translate(_SLASHES)).translate(_SLASHES)
