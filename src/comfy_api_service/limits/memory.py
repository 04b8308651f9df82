"""Token buckets of one process."""

from collections.abc import Sequence
from typing import Final

from comfy_api_service.domain.clock import Clock
from comfy_api_service.limits.base import MICROSECONDS, Charge, Decision, decide, keys_of

MOST_BUCKETS: Final = 100_000
"""Buckets that are not full; beyond, those that were used longest ago are forgotten."""


class MemoryBuckets:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: dict[str, int] = {}
        """Microseconds of the clock; absent: full. The one used last stands last."""

    async def take(self, *charges: Charge, units: int = 1) -> Decision:
        return self.take_now(keys_of(charges, units), charges, units)

    def take_now(self, keys: Sequence[str], charges: Sequence[Charge], units: int) -> Decision:
        """`keys`: of the buckets, in the order of the charges."""
        now = int(self._clock.monotonic() * MICROSECONDS)
        backlogs = [self._backlog(key, charge, now) for key, charge in zip(keys, charges, strict=True)]
        granted = min(
            [
                (charge.bucket.span - backlog) // (charge.bucket.interval * charge.tokens)
                for charge, backlog in zip(charges, backlogs, strict=True)
                if charge.tokens
            ],
            default=units,
        )
        granted = min(granted, units)
        for n, charge in enumerate(charges):
            if granted and charge.tokens:
                backlogs[n] += granted * charge.tokens * charge.bucket.interval
                self._keep(keys[n], now + backlogs[n], now)
        return decide(charges, granted, backlogs)

    def _backlog(self, key: str, charge: Charge, now: int) -> int:
        """Never more than the bucket's span: its limits may have changed since."""
        full_at = self._full_at.get(key, now)
        return min(max(full_at - now, 0), charge.bucket.span)

    def _keep(self, key: str, full_at: int, now: int) -> None:
        self._full_at.pop(key, None)
        self._full_at[key] = full_at
        if len(self._full_at) > MOST_BUCKETS:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
            while len(self._full_at) > MOST_BUCKETS * 3 // 4:
                del self._full_at[next(iter(self._full_at))]
