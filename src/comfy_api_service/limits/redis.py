"""Token buckets that all processes share, in Redis; while it is away, each process has its own."""

import hashlib
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


class RedisBuckets:
    """`clock`: by default the server's, which is the same for all."""

    def __init__(self, link: RedisLink, metrics: Metrics, clock: Clock | None = None) -> None:
        self._link = link
        self._metrics = metrics
        self._clock = clock
        self._own = MemoryBuckets(clock or SystemClock())

    async def take(self, *charges: Charge, units: int = 1) -> Decision:
        """Never later than 250 ms, twice that if the server has forgotten the script."""
        keys = keys_of(charges, units)
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
            reply = None
        if not isinstance(reply, list):
            self._metrics.redis_fallbacks.labels("buckets").inc()
            return self._own.take_now(keys, charges, units)
        granted, *backlogs = reply
        return decide(charges, granted, backlogs)
