"""`python -m tests.chaos.launcher …` is `comfy-api …` with failpoints and a clock that can be set.

Both are wrapped around the service here, so that the service itself has no code for its tests.
"""

import os
from pathlib import Path

from tests.chaos import settable_clock, trap

from comfy_api_service.cli.main import main

FOLDER = "CHAOS_FOLDER"

if __name__ == "__main__":
    folder = Path(os.environ[FOLDER])
    trap.install(folder)
    settable_clock.install(folder)
    main()
