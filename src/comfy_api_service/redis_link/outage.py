"""Says once that something is away, again when the reason is another, and that it is back."""

import structlog

log = structlog.get_logger()


class Outage:
    """Reasons are names of kinds of faults: their messages may quote hosts."""

    def __init__(self, away: str, back: str) -> None:
        self._away = away
        self._back = back
        self._reason: str | None = None

    def because(self, reason: str) -> None:
        if reason != self._reason:
            log.warning(self._away, fault=reason)
            self._reason = reason

    def over(self) -> None:
        log.info(self._back)
        self._reason = None
