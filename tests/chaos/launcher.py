"""`python -m tests.chaos.launcher …` is `comfy-api …` with failpoints and a clock that can be set.

Both are wrapped around the service here, so that the service itself has no code for its tests.
"""

import os
from pathlib import Path

from tests.chaos import settable_clock, trap

from comfy_api_service.cli.main import main

FOLDER = "CHAOS_FOLDER"
NAME = "CHAOS_NAME"

if __name__ == "__main__":
    folder = Path(os.environ[FOLDER])
    name = os.environ[NAME]
    trap.install(folder, name)
    settable_clock.install(folder / name)
    main()
