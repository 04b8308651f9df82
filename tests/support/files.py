"""What lies in a folder that others are writing to."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Its files and those of all folders in it, sorted; none if it is not there.

    Folders may go away under it, which `Path.rglob` answers with an error.
    """
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)
