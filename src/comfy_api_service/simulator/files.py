"""The folders of a simulated server: input, output, temp. Blocking: call it from a thread.

Paths in messages are those of a server installed in /opt/ComfyUI: a real path of this machine is never told.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

from PIL import Image

SHOWN_ROOT = "/opt/ComfyUI"
KINDS = ("input", "output", "temp")
KEPT_VIRTUAL = 100_000
KEPT_COUNTERS = 10_000


class OutsideOutputError(Exception):
    """A save prefix leads out of the output folder."""


class Files:
    """Three folders under one root, the counters of saved names, and files that are only pretended."""

    def __init__(self, folder: Path | None) -> None:
        self._own = folder is None
        self.root = Path(tempfile.mkdtemp(prefix="comfy-simulator-")) if folder is None else folder
        self._counters: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._virtual: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self.input_version = 0
        for kind in KINDS:
            (self.root / kind).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.root / "temp", ignore_errors=True)
        (self.root / "temp").mkdir()
        example = self.root / "input" / "example.png"
        if not example.exists():
            Image.linear_gradient("L").convert("RGB").save(example)

    def close(self) -> None:
        if self._own:
            shutil.rmtree(self.root, ignore_errors=True)

    def directory(self, kind: str) -> Path | None:
        return self.root / kind if kind in KINDS else None

    def inputs(self) -> list[str]:
        """Names of the files directly in input/, sorted."""
        return sorted(p.name for p in (self.root / "input").iterdir() if p.is_file())

    def annotated(self, name: str) -> tuple[str, Path]:
        """Split `name [output]` into the name and its folder; without a mark it is input/."""
        for kind in KINDS:
            if name.endswith(f"[{kind}]"):
                return name[: -len(kind) - 3], self.root / kind
        return name, self.root / "input"

    def find_input(self, name: str) -> tuple[Path | None, bool]:
        """The file that a loader node names, and whether there is one.

        A path that leads out of the folders is only looked for, as a real server would, and never opened:
        there is no path then.
        """
        bare, folder = self.annotated(name)
        path = Path(os.path.normpath(folder / bare))
        if path.is_relative_to(folder):
            return path, path.is_file()
        shown = os.path.normpath(f"{SHOWN_ROOT}/{folder.name}/{bare}")
        return None, Path(shown).exists()

    def shown(self, name: str) -> str:
        """The path as a real server writes it into its error message."""
        bare, folder = self.annotated(name)
        return f"{SHOWN_ROOT}/{folder.name}/{bare}"

    def content_hash(self, name: str) -> str:
        path, exists = self.find_input(name)
        if path is None or not exists:
            return "absent"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def reserve(
        self, prefix: str, kind: str, count: int, size: tuple[int, int]
    ) -> tuple[Path, str, str, int]:
        """Folder, subfolder, file name and first number for `count` files saved under `prefix`."""
        prefix = _with_variables(prefix, size)
        normal = os.path.normpath(prefix)
        subfolder, name = os.path.split(normal)
        base = f"{SHOWN_ROOT}/{kind}"
        full = os.path.normpath(os.path.join(base, subfolder))  # noqa: PTH118 - as text, nothing is touched
        if os.path.commonpath((base, full)) != base:
            raise OutsideOutputError(
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {full}\n         output_dir: {base}"
                f"\n         commonpath: {os.path.commonpath((base, full))}"
            )
        folder = self.root / kind / subfolder
        with self._lock:
            key = (str(folder), name)
            if key not in self._counters:
                if len(self._counters) >= KEPT_COUNTERS:
                    self._counters.clear()
                self._counters[key] = _highest(folder, name)
            first = self._counters[key] + 1
            self._counters[key] += count
        return folder, subfolder, name, first

    def fix(self, content: bytes) -> Path:
        """A file with the bytes that all pretended files have."""
        path = self.root / "fixed"
        path.write_bytes(content)
        return path

    def pretend(self, filename: str, subfolder: str, kind: str) -> None:
        """Remember a file that has the fixed bytes and no place of its own on disk."""
        self._virtual[filename, subfolder, kind] = None
        while len(self._virtual) > KEPT_VIRTUAL:
            self._virtual.popitem(last=False)

    def is_pretended(self, filename: str, subfolder: str, kind: str) -> bool:
        return (filename, subfolder, kind) in self._virtual

    def delete_outputs(self) -> None:
        """All that was saved is gone, as after somebody cleaned up on the server."""
        self._virtual.clear()
        with self._lock:
            self._counters.clear()
        for kind in ("output", "temp"):
            shutil.rmtree(self.root / kind, ignore_errors=True)
            (self.root / kind).mkdir(parents=True, exist_ok=True)

    def clear_temp(self) -> None:
        """What a start of the server does."""
        shutil.rmtree(self.root / "temp", ignore_errors=True)
        (self.root / "temp").mkdir(parents=True, exist_ok=True)

    def store_upload(
        self, kind: str, subfolder: str, filename: str, content: bytes, *, overwrite: bool
    ) -> str | None:
        """Write an uploaded file; the name it got, or None if it would lie outside its folder."""
        base = self.root / kind
        folder = base / os.path.normpath(subfolder)
        path = Path(os.path.normpath(folder / filename))
        if not path.is_relative_to(base):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        stem, extension = os.path.splitext(filename)  # noqa: PTH122 - a name with a slash stays as it is
        number = 1
        while not overwrite and path.exists():
            if path.read_bytes() == content:
                return filename
            filename = f"{stem} ({number}){extension}"
            path = folder / filename
            number += 1
        partial = path.with_name(f".{secrets.token_hex(8)}")
        partial.write_bytes(content)
        partial.replace(path)
        self.input_version += 1
        return filename


def _with_variables(prefix: str, size: tuple[int, int]) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {
        "width": str(size[0]),
        "height": str(size[1]),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _highest(folder: Path, name: str) -> int:
    """The greatest number of the files `name_00001_…` in the folder, which is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    highest = 0
    for path in folder.iterdir():
        if path.name.lower().startswith(f"{name.lower()}_"):
            digits = path.name[len(name) + 1 :].split("_")[0]
            if digits.isdigit():
                highest = max(highest, int(digits))
    return highest
