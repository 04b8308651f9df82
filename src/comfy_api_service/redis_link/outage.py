"""Says once that something is away, again when the reason is another, and that it is back."""

import structlog

log = structlog.get_logger()


class Outage:
    """The reason is the name of a kind of fault: its message may quote hosts."""

    def __init__(self, away: str, back: str) -> None:
        self._away = away
        self._back = back
        self._reason: str | None = None

    def because(self, fault: Exception) -> None:
        reason = type(fault).__name__
        if reason != self._reason:
            log.warning(self._away, fault=reason)
            self._reason = reason

    def over(self) -> None:
        log.info(self._back)
        self._reason = None
