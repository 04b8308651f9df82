import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from comfy_api_service.cli.client.saving import save, targets
from comfy_api_service.cli.faults import Fault

CONTENT = b"picture" * 1000
ARTIFACT = {"sha256": hashlib.sha256(CONTENT).hexdigest()}


async def chunks(content: bytes = CONTENT) -> AsyncGenerator[bytes]:
    yield content[:10]
    yield content[10:]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("target", "types", "expected"),
    [
        (None, ["image/png"], ["job_1.png"]),
        (None, ["image/png", "image/jpeg"], ["job_1_1.png", "job_1_2.jpg"]),
        ("out/fox.png", ["image/png"], ["out/fox.png"]),
        ("fox.png", ["image/png", "image/png"], ["fox_1.png", "fox_2.png"]),
        ("fox", ["image/webp"], ["fox.webp"]),
        ("fox", ["application/x-unknown"], ["fox.bin"]),
        ("fox", ["text/plain; charset=utf-8"], ["fox.txt"]),
        ("fox.png", ["image/png", "audio/flac"], ["fox_1.png", "fox_2.flac"]),
    ],
)
def test_names(target: str | None, types: list[str], expected: list[str]) -> None:
    found = targets(None if target is None else Path(target), "job_1", types)
    assert [str(path) for path in found] == expected


async def test_a_whole_file_in_its_place(tmp_path: Path) -> None:
    await save(chunks(), tmp_path / "new" / "fox.png", ARTIFACT, force=False)
    assert (tmp_path / "new" / "fox.png").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["fox.png"]


async def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(b"mine")
    with pytest.raises(Fault, match="there already") as told:
        await save(chunks(), path, ARTIFACT, force=False)
    assert told.value.exit_code == 2
    assert path.read_bytes() == b"mine"
    await save(chunks(), path, ARTIFACT, force=True)
    assert path.read_bytes() == CONTENT


async def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"

    async def slow() -> AsyncGenerator[bytes]:
        yield CONTENT
        path.write_bytes(b"theirs")

    with pytest.raises(Fault, match="there already"):
        await save(slow(), path, ARTIFACT, force=False)
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["fox.png"]


async def test_an_altered_file_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="altered"):
        await save(chunks(CONTENT[:-1]), tmp_path / "fox.png", ARTIFACT, force=True)
    assert names(tmp_path) == []


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fault, match="cannot be written") as told:
        await save(chunks(), tmp_path / "file" / "fox.png", ARTIFACT, force=False)
    assert told.value.remedy
