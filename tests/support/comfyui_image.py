"""The command that starts a ComfyUI in a container, run with a stand-in for ComfyUI that is as particular."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_VOLUME: Final = "/comfyui"
_MUST_BE_THERE: Final = ("--user-directory", "--input-directory")
"""ComfyUI refuses to start without the first, and loses the node that loads pictures without the second."""
_PYTHON: Final = """#!/bin/sh
printf '%s\\n' "$@" >told
"""


def started(command: Sequence[str], folder: Path) -> Mapping[str, str]:
    """Its options. The volume is an empty folder here; the folders that must be there are."""
    tools, volume = folder / "tools", folder / "volume"
    for one in (tools, volume):
        one.mkdir(exist_ok=True)
    (tools / "python").write_text(_PYTHON)
    (tools / "python").chmod(0o755)
    done = subprocess.run(
        [word.replace("$$", "$").replace(_VOLUME, str(volume)) for word in command],
        cwd=folder,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    program, *words = (folder / "told").read_text().splitlines()
    assert program == "main.py"
    joined = "\n".join(words).replace("\n--", "\0--").replace("\n", "=").split("\0")
    told = dict(word.partition("=")[::2] for word in joined)
    for option in _MUST_BE_THERE:
        assert Path(told[option]).is_dir(), option
    assert "--base-directory" not in told, "it moves custom nodes and models too, and they are in the image"
    assert all(str(volume) in told[option] for option in ("--output-directory", "--temp-directory"))
    return told
