"""The end of the process, told to whoever keeps a connection open: streams, sockets, waiting requests."""

from collections.abc import Callable


class Draining:
    """Begun once, by the composition root, before the server closes its connections."""

    def __init__(self) -> None:
        self._begun = False
        self._acts: set[Callable[[], object]] = set()

    @property
    def begun(self) -> bool:
        return self._begun

    def begin(self) -> None:
        """Tell everybody; whoever comes later is told at once."""
        self._begun = True
        for act in tuple(self._acts):
            act()

    def on_begin(self, act: Callable[[], object]) -> Callable[[], None]:
        """Call `act` when it begins; returns what ends that."""
        if self._begun:
            act()
        self._acts.add(act)
        return lambda: self._acts.discard(act)
