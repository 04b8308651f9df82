"""Files of a result: their names, and their bytes in place only when they are whole."""

import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from comfy_api_service.cli.faults import ExitCode, Fault

SUFFIXES: Mapping[str, str] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "audio/flac": ".flac",
    "audio/mp4": ".m4a",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/wav": ".wav",
    "text/plain": ".txt",
}


def targets(target: Path | None, job_id: str, media_types: Sequence[str]) -> list[Path]:
    """A path for each file: the one asked for, or `name_1`, `name_2` … if there are several.

    Without one, they are named after the job, here. Files of several kinds have each its own suffix.
    """
    suffixes = [SUFFIXES.get(media_type.partition(";")[0], ".bin") for media_type in media_types]
    asked = target is not None and target.suffix and len(set(suffixes)) == 1
    named = [
        target if target is not None and asked else (target or Path(job_id)).with_suffix(suffix)
        for suffix in suffixes
    ]
    return numbered(named)


def numbered(paths: Sequence[Path]) -> list[Path]:
    if len(paths) == 1:
        return list(paths)
    return [path.with_name(f"{path.stem}_{n}{path.suffix}") for n, path in enumerate(paths, 1)]


def refuse_overwriting(paths: Sequence[Path]) -> None:
    there = [path for path in paths if path.exists()]
    if there:
        raise Fault(
            f"{there[0]} is there already.",
            "Name another file with -o, or replace it with --force.",
            exit_code=ExitCode.USAGE,
        )


async def save(
    chunks: AsyncGenerator[bytes], path: Path, artifact: Mapping[str, Any], *, force: bool
) -> None:
    """Write beside the place, check, then move: no half file ever stands under the name."""
    if not force:
        refuse_overwriting([path])
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                await _copy(chunks, file, artifact)
            if force:
                part.replace(path)
            else:
                _move_to_new(part, path)
        finally:
            part.unlink(missing_ok=True)


async def write_out(chunks: AsyncGenerator[bytes], artifact: Mapping[str, Any]) -> None:
    """The file to standard output."""
    await _copy(chunks, sys.stdout.buffer, artifact)
    sys.stdout.buffer.flush()


async def _copy(chunks: AsyncGenerator[bytes], file: BinaryIO, artifact: Mapping[str, Any]) -> None:
    digest = hashlib.sha256()
    async with contextlib.aclosing(chunks) as pieces:
        async for chunk in pieces:
            digest.update(chunk)
            file.write(chunk)
    expected = artifact.get("sha256")
    if expected is not None and digest.hexdigest() != expected:
        raise Fault("The file came altered or cut off.", "Download it again: `comfy-api jobs save JOB`.")


def _move_to_new(part: Path, path: Path) -> None:
    """Like `replace`, but refuses if somebody else made the file meanwhile."""
    try:
        os.link(part, path)
    except FileExistsError:
        refuse_overwriting([path])
    except OSError:  # a file system without links
        refuse_overwriting([path])
        part.replace(path)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Fault(f"{path} cannot be written: {error.strerror}.", "Name another place with -o.") from error
