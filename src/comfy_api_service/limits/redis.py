"""Token buckets that all processes share, in Redis; while it is away, each process has its own."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final

from comfy_api_service.domain.clock import Clock, SystemClock
from comfy_api_service.limits.base import MICROSECONDS, Charge, Decision, decide, keys_of
from comfy_api_service.limits.memory import MemoryBuckets
from comfy_api_service.redis_link.client import Refusal
from comfy_api_service.redis_link.link import RedisAway, RedisLink
from comfy_api_service.telemetry import Metrics

SCRIPT: Final = b"""
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local granted = tonumber(ARGV[2])
local backlogs, costs = {}, {}
for i, key in ipairs(KEYS) do
  local interval, capacity, tokens = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local span = interval * capacity
  local backlog = (tonumber(redis.call('GET', key) or now) or now) - now
  if not (backlog > 0) then backlog = 0 end
  if backlog > span then backlog = span end
  backlogs[i], costs[i] = backlog, interval * tokens
  if tokens > 0 then granted = math.min(granted, math.floor((span - backlog) / costs[i])) end
end
if granted > 0 then
  for i, key in ipairs(KEYS) do
    if costs[i] > 0 then
      backlogs[i] = backlogs[i] + granted * costs[i]
      redis.call('SET', key, string.format('%.0f', now + backlogs[i]), 'PX', math.ceil(backlogs[i] / 1000))
    end
  end
end
return {granted, unpack(backlogs)}
"""
"""`MemoryBuckets.take_now`, to the microsecond. A key lives as long as its bucket is not full."""
_SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()


MOST_TOGETHER: Final = 64
"""Tokens of one bucket that are asked for in one call."""


class RedisBuckets:
    """`clock`: by default the server's, which is the same for all."""

    def __init__(self, link: RedisLink, metrics: Metrics, clock: Clock | None = None) -> None:
        self._link = link
        self._metrics = metrics
        self._clock = clock
        self._own = MemoryBuckets(clock or SystemClock())
        self._together: dict[Charge, list[asyncio.Future[Decision]]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def take(self, *charges: Charge, units: int = 1) -> Decision:
        """Never later than 250 ms, twice that if the server has forgotten the script.

        Single tokens of one bucket are asked for together, as long as each round of the loop brings more of them.
        """
        if len(charges) == 1 and units == 1 and charges[0].tokens:
            return await self._take_with_others(charges[0])
        keys = keys_of(charges, units)
        found = await self._ask(keys, charges, units)
        return self._fallback(keys, charges, units) if found is None else decide(charges, *found)

    async def _take_with_others(self, charge: Charge) -> Decision:
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Decision] = loop.create_future()
        others = self._together.get(charge)
        if others is None:
            self._together[charge] = [mine]
            loop.call_soon(self._begin, charge, 0)
        else:
            others.append(mine)
        return await mine

    def _begin(self, charge: Charge, seen: int) -> None:
        """`seen`: as many asked when this was looked at in the round before."""
        asked = len(self._together[charge])
        if seen < asked < MOST_TOGETHER:
            asyncio.get_running_loop().call_soon(self._begin, charge, asked)
            return
        task = asyncio.create_task(self._answer(charge, self._together.pop(charge)))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answer(self, charge: Charge, waiting: Sequence[asyncio.Future[Decision]]) -> None:
        """In order of arrival: each is told what the bucket held after it."""
        keys = [charge.bucket.key]
        try:
            found = await self._ask(keys, (charge,), len(waiting))
        except Exception as fault:  # noqa: BLE001 - it belongs to those who wait
            for one in waiting:
                if not one.done():
                    one.set_exception(fault)
            return
        for number, one in enumerate(waiting):
            if found is None:
                decision = self._fallback(keys, (charge,), 1)
            else:
                granted, (backlog,) = found
                later = max(granted - 1 - number, 0) * charge.tokens * charge.bucket.interval
                decision = decide((charge,), int(number < granted), (backlog - later,))
            if not one.done():
                one.set_result(decision)

    def _fallback(self, keys: Sequence[str], charges: Sequence[Charge], units: int) -> Decision:
        self._metrics.redis_fallbacks.labels("buckets").inc()
        return self._own.take_now(keys, charges, units)

    async def _ask(
        self, keys: Sequence[str], charges: Sequence[Charge], units: int
    ) -> tuple[int, list[int]] | None:
        """Units that were granted, and the backlogs after them; None while Redis is away."""
        now = "" if self._clock is None else int(self._clock.monotonic() * MICROSECONDS)
        numbers = [
            n for charge in charges for n in (charge.bucket.interval, charge.bucket.capacity, charge.tokens)
        ]
        rest = (len(keys), *keys, now, units, *numbers)
        try:
            (reply,) = await self._link.ask("buckets", ("EVALSHA", _SHA, *rest))
            if reply == Refusal("NOSCRIPT"):
                (reply,) = await self._link.ask("buckets", ("EVAL", SCRIPT, *rest))
        except RedisAway:
            return None
        return (reply[0], reply[1:]) if isinstance(reply, list) else None
