"""What output nodes give: references to files on the server, texts and numbers.

A reference is a claim of the server. One that points outside the folders of outputs is refused here, and
counted, so that no request is ever made for it and nobody takes it for a result.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_api_service.comfyui import wire
from comfy_api_service.domain.graph import OWN_FOLDER

TYPES: Final = frozenset({"output", "temp", "input"})
"""The folders that `/view` serves."""
MAX_FILES: Final = 4096
MAX_VALUES: Final = 256
MAX_TEXT: Final = 65_536
"""Characters of one text that a node gave."""
MAX_TEXTS: Final = 262_144
"""Characters of all texts of one node."""

_DRIVE: Final = re.compile(r"[A-Za-z]:")
_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters that no text needs, and that do something to a terminal."""
_CUT: Final = "…"
_UNWRITABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, those that turn the direction of text, halves of surrogate pairs."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file as `/view` wants it: a plain name, a relative folder or "", `type` output, temp or input."""

    filename: str
    subfolder: str
    type: str


@dataclass(frozen=True, slots=True)
class Given:
    """What one node gave; `invalid` counts refused references."""

    files: tuple[FileRef, ...]
    values: tuple[Any, ...]
    invalid: int


def file_ref(filename: object, subfolder: object, folder_type: object) -> FileRef | None:
    """The reference, or None if it is not one that stays inside its folder.

    A server on Windows separates folders by backslashes. They are read as `/`, before the check, so that
    one cannot hide a `..`; a name never holds one.
    """
    if type(filename) is not str or type(subfolder) is not str or type(folder_type) is not str:
        return None
    if folder_type not in TYPES:
        return None
    folder = subfolder.replace("\\", "/")
    if not _plain(filename) or len(folder) > 1024:
        return None
    if folder and not all(_plain(part) for part in folder.split("/")):
        return None
    return FileRef(filename, folder, folder_type)


def is_safe(ref: FileRef) -> bool:
    return file_ref(ref.filename, ref.subfolder, ref.type) == ref


def is_anothers(ref: FileRef, job_id: str, attempt: int) -> bool:
    """True for a file in this service's own folder that this attempt did not write: another job's, or an input.

    Read as a file system that ignores case, and blanks and dots at the end of a name, would read it.
    """
    first, *rest = ref.subfolder.split("/")
    if first.strip(" .").casefold() != OWN_FOLDER:
        return False
    return ref.type != "output" or first != OWN_FOLDER or rest[:2] != [job_id, str(attempt)]


def _plain(part: str) -> bool:
    """True for one part of a path that goes nowhere else, at most 255 bytes of UTF-8."""
    if not part or part in {".", ".."} or len(part) > 255:
        return False
    if "/" in part or "\\" in part or _DRIVE.match(part) or _UNWRITABLE.search(part):
        return False
    return len(part.encode()) <= 255


def given(output: object) -> Given:
    """What a node's `output` (of `executed`, or of history) holds, under any key, in its order.

    ComfyUI's keys do not tell the kind: an mp4 stands under `images`. Flags such as `animated` are dropped. Texts
    beyond `MAX_TEXT` are cut, and end with `…`; values beyond the other bounds are left out.
    """
    files: list[FileRef] = []
    values: list[Any] = []
    invalid = written = 0
    for entry in _entries(wire.mapping(output)):
        if isinstance(entry, dict):
            if "filename" not in entry:
                continue
            ref = file_ref(entry["filename"], entry.get("subfolder", ""), entry.get("type", "output"))
            if ref is None or len(files) >= MAX_FILES:
                invalid += 1
            else:
                files.append(ref)
        elif len(values) < MAX_VALUES:
            value = _text(entry) if isinstance(entry, str) else wire.number(entry)
            if value is None:
                continue
            written += len(value) if isinstance(value, str) else 0
            if written <= MAX_TEXTS:
                values.append(value)
    return Given(tuple(files), tuple(values), invalid)


def _text(raw: str) -> str:
    text = raw if len(raw) <= MAX_TEXT else raw[: MAX_TEXT - 1] + _CUT
    return _UNSPEAKABLE.sub("\ufffd", wire.text(text, MAX_TEXT))


def _entries(output: Mapping[str, Any]) -> Iterator[Any]:
    for value in output.values():
        if isinstance(value, list):
            yield from value
        else:
            yield value
