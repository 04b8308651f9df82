"""When a delivery that failed is tried again, when a receiver is left alone, and when it is enough."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

DELIVERY_SECONDS: Final = 3 * 86_400.0
"""How long a delivery is tried."""
KEPT_SECONDS: Final = 30 * 86_400.0
"""How long the log has a delivery, whatever became of it."""
DISABLE_SECONDS: Final = DELIVERY_SECONDS - 300.0
"""A webhook that nothing could be delivered to for so long is disabled. The last attempt of the delivery that failed
first, which comes a little before that one's end (`LAST_SECONDS`), is to find that it is so."""
LONGEST_PAUSE: Final = 6 * 3600.0
FAILING: Final = 3
"""Failures in a row after which a receiver is asked by one delivery at a time."""
SUSPECT: Final = 5
"""Failures in a row after which the others wait, too."""
LONGEST_REST: Final = 60.0
LAST_SECONDS: Final = 60.0
"""So long before the end a delivery is tried for the last time."""
LONGEST_RETRY_AFTER: Final = 3600.0
HEEDED: Final = frozenset({429, 503})
"""Statuses whose `Retry-After` is heeded."""
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


def pause(attempts: int, *, first: float, draw: float) -> float:
    """Seconds until the next attempt after so many; `draw` (0…1) spreads those that failed together."""
    return float(min(first * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE) * (0.75 + draw / 2))


def in_time(next_at: float, expires_at: float, now: float) -> float | None:
    """When the next attempt is, no later than the last one; None: that was it."""
    last = expires_at - LAST_SECONDS
    if next_at <= last:
        return next_at
    return last if now < last else None


def rest(failures: int, *, first: float, draw: float) -> float:
    """Seconds for which a receiver is asked nothing after so many failures in a row."""
    if failures < SUSPECT:
        return 0.0
    return float(min(first / 5 * 2.0 ** min(failures - SUSPECT, 30), LONGEST_REST) * (0.75 + draw / 2))


def asked_for(header: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` asks to wait, within bounds; None if it says nothing that is understood."""
    if header is None:
        return None
    if _DIGITS.fullmatch(header.strip()):
        seconds = float(header)
    else:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
