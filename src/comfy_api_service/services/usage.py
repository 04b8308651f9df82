"""What accounts used: per day, and what is left of today."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from comfy_api_service.db import usage, webhooks
from comfy_api_service.db.base import Database, Reader
from comfy_api_service.db.usage import Day, Line
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.times import next_utc_day, utc_day
from comfy_api_service.domain.webhook import Webhook

PAGE: Final = 1000
"""Lines of an export that are read at once."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Days newest first; `used_today` in images, with those that are reserved; `reset_at`: when the day is over;
    `stopped`: webhooks that the service disabled.
    """

    days: tuple[Day, ...]
    used_today: int
    running: int
    waiting: int
    reset_at: float
    stopped: tuple[Webhook, ...] = ()


class Usages:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def of(self, account: Account, *, days: int) -> Usage:
        now = self._clock.now()
        today, first = utc_day(now), utc_day(now - (days - 1) * 86_400.0)

        async def read(tx: Reader) -> Usage:
            found = await usage.days_of(tx, account.id, first, today)
            running, waiting = await usage.open_jobs(tx, account.id)
            used = next((day.images + day.reserved for day in found if day.day == today), 0)
            stopped = tuple(await webhooks.notices(tx, account.id))
            return Usage(tuple(found), used, running, waiting, next_utc_day(now), stopped)

        return await self._db.read(read)

    async def export(self, first: str, last: str) -> AsyncIterator[Line]:
        """Of all accounts, by day and account; both days are in it."""
        place = ("", "")
        while True:
            lines = await self._db.read(
                lambda tx, place=place: usage.lines(tx, first, last, after=place, limit=PAGE)  # type: ignore[misc]
            )
            for line in lines:
                yield line
            if len(lines) < PAGE:
                return
            place = (lines[-1].day, lines[-1].account_id)
