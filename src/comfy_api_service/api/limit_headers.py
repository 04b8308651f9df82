"""What an answer tells of its buckets: the three headers that most clients know, and those of the IETF.

`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-11 (May 2026): lists of strings with
parameters; `q` tokens in `w` seconds, `r` tokens there and no more of them for `t` seconds.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from comfy_api_service.limits.base import MICROSECONDS, Bucket, Charge, Decision, Level


def limit_headers(charges: Sequence[Charge], decision: Decision, *, now: float) -> list[tuple[bytes, bytes]]:
    """Of a decision over the charges, as ASGI has them; `now` in Unix seconds. None without a charge.

    `X-RateLimit-…` are of the bucket with the least share left, the first of equal ones; its reset is the Unix
    second in which it is full again. The others list every bucket, in the order of the charges.
    """
    if not charges:
        return []
    scarcest = min(decision.levels, key=_share) if len(charges) > 1 else decision.levels[0]
    return [
        (b"x-ratelimit-limit", b"%d" % scarcest.limit),
        (b"x-ratelimit-remaining", b"%d" % scarcest.remaining),
        (b"x-ratelimit-reset", b"%d" % math.ceil(now + scarcest.reset_after)),
        (b"ratelimit-policy", b", ".join([_policy(charge.bucket) for charge in charges])),
        (b"ratelimit", b", ".join(map(_level, charges, decision.levels))),
    ]


def _share(level: Level) -> float:
    return level.remaining / level.limit


@lru_cache(maxsize=256)
def _policy(bucket: Bucket) -> bytes:
    seconds = max(round(bucket.span / MICROSECONDS), 1)  # not up: the interval of 7 a minute is rounded
    return f'"{bucket.kind}";q={bucket.capacity};w={seconds}'.encode()


def _level(charge: Charge, level: Level) -> bytes:
    bucket = charge.bucket
    return f'"{bucket.kind}";r={level.remaining};t={_until_one_more(bucket, level)}'.encode()


def _until_one_more(bucket: Bucket, level: Level) -> int:
    """Whole seconds, rounded up, until the bucket has one token more than it has; 0 if it is full."""
    missing = level.limit - level.remaining
    backlog = round(level.reset_after * MICROSECONDS)
    return math.ceil((backlog - max(missing - 1, 0) * bucket.interval) / MICROSECONDS)
