"""How long to wait before the next try to connect."""

import secrets
from typing import Final

FIRST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 2.0


class Pauses:
    """Doubled from try to try, each a random part shorter, so that processes don't come back in step."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def next(self) -> float:
        longest, self._next = self._next, min(self._next * 2, LONGEST_SECONDS)
        return secrets.SystemRandom().uniform(longest / 2, longest)

    def reset(self) -> None:
        self._next = FIRST_SECONDS
