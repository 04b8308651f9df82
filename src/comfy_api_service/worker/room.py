"""How many prompts a worker may have open, over all of its backends."""


class Room:
    def __init__(self, most: int | None) -> None:
        self._most = most
        self._taken = 0
        self.wanted: set[str] = set()
        """Jobs that one of the drivers is about to take."""

    @property
    def free(self) -> bool:
        return self._most is None or self._taken < self._most

    def take(self) -> None:
        self._taken += 1

    def give_back(self) -> None:
        self._taken -= 1
