"""The headers of a limited caller against the arithmetic of its bucket, request by request."""

from collections.abc import Sequence

import pytest
from tests.support.buckets import HandClock

from comfy_api_service.api.limit_headers import limit_headers
from comfy_api_service.limits.base import Bucket, Charge, Decision, Level
from comfy_api_service.limits.memory import MemoryBuckets

SUBMISSIONS = Charge(Bucket.per(60, 5, kind="submissions", whom="a"))
READS = Charge(Bucket.per(60, 100, kind="reads", whom="a"))


def told(charges: Sequence[Charge], decision: Decision, *, now: float) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in limit_headers(charges, decision, now=now)}


class Caller:
    """What one sees who is told of `charges`."""

    def __init__(self, *charges: Charge) -> None:
        self.clock = HandClock()
        self._buckets = MemoryBuckets(self.clock)
        self._charges = charges
        self.began = round(self.clock.now())

    async def asks(self) -> tuple[bool, dict[str, str]]:
        decision = await self._buckets.take(*self._charges)
        return decision.granted == 1, told(self._charges, decision, now=self.clock.now())


async def test_request_by_request() -> None:
    """5 a minute: one more each 12 s. What passed, then: granted, left, full again after, one more after."""
    caller = Caller(SUBMISSIONS)
    for passed, granted, left, full, more in (
        (0, True, 4, 12, 12),
        (0, True, 3, 24, 12),
        (0, True, 2, 36, 12),
        (2, True, 1, 46, 10),
        (0, True, 0, 58, 10),
        (0, False, 0, 58, 10),
        (9.5, False, 0, 49, 1),
        (0.5, True, 0, 60, 12),
        (36, True, 2, 36, 12),
        (35.999, True, 3, 13, 1),
        (0.001, True, 3, 24, 12),
        (3600, True, 4, 12, 12),
    ):
        caller.clock.pass_seconds(passed)
        found, headers = await caller.asks()
        now = caller.clock.now()
        assert found is granted
        assert headers == {
            "x-ratelimit-limit": "5",
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-reset": headers["x-ratelimit-reset"],
            "ratelimit-policy": '"submissions";q=5;w=60',
            "ratelimit": f'"submissions";r={left};t={more}',
        }
        assert full - 1 < int(headers["x-ratelimit-reset"]) - now < full + 1


async def test_it_is_full_when_it_says_and_not_a_second_before() -> None:
    caller = Caller(SUBMISSIONS)
    headers = [await caller.asks() for _ in range(3)][-1][1]
    looker = Charge(SUBMISSIONS.bucket, 0)
    wait = int(headers["x-ratelimit-reset"]) - caller.clock.now()
    caller.clock.pass_seconds(wait - 1)
    before = await caller._buckets.take(looker)
    assert told([looker], before, now=caller.clock.now())["x-ratelimit-remaining"] == "4"
    caller.clock.pass_seconds(1)
    after = told([looker], await caller._buckets.take(looker), now=caller.clock.now())
    assert after["x-ratelimit-remaining"] == "5"
    assert after["x-ratelimit-reset"] == str(round(caller.clock.now()))
    assert after["ratelimit"] == '"submissions";r=5;t=0'


async def test_who_waits_as_told_is_let_in_and_not_before() -> None:
    caller = Caller(SUBMISSIONS)
    granted, headers = [await caller.asks() for _ in range(7)][-1]
    assert not granted
    seconds = int(headers["ratelimit"].rpartition("t=")[2])
    caller.clock.pass_seconds(seconds - 1)
    assert not (await caller.asks())[0]
    caller.clock.pass_seconds(1)
    assert (await caller.asks())[0]


async def test_of_several_the_scarcest_is_told_and_all_are_listed_in_their_order() -> None:
    caller = Caller(READS, SUBMISSIONS)
    _, headers = await caller.asks()
    assert headers["x-ratelimit-limit"] == "5"
    assert headers["x-ratelimit-remaining"] == "4"
    assert headers["ratelimit-policy"] == '"reads";q=100;w=60, "submissions";q=5;w=60'
    assert headers["ratelimit"] == '"reads";r=99;t=1, "submissions";r=4;t=12'


def test_of_equal_shares_the_first() -> None:
    small, large = Bucket.per(60, 2, kind="small", whom="a"), Bucket.per(60, 4, kind="large", whom="a")
    levels = {"small": Level(2, 1, 30.0, 0.0), "large": Level(4, 2, 30.0, 0.0)}
    for first, second in ((small, large), (large, small)):
        decision = Decision(1, (levels[first.kind], levels[second.kind]))
        headers = told([Charge(first), Charge(second)], decision, now=1000.2)
        assert headers["x-ratelimit-limit"] == str(first.capacity)
        assert headers["x-ratelimit-reset"] == "1031"


@pytest.mark.parametrize(
    ("seconds", "tokens", "window"), [(60, 7, 60), (60, 1, 60), (86_400, 1000, 86_400), (0.5, 3, 1)]
)
def test_the_window(seconds: float, tokens: int, window: int) -> None:
    """In whole seconds, though an interval of microseconds does not come out even."""
    charge = Charge(Bucket.per(seconds, tokens, kind="k", whom="a"))
    headers = told([charge], Decision(1, (Level(tokens, 0, seconds, 0.0),)), now=0.0)
    assert headers["ratelimit-policy"] == f'"k";q={tokens};w={window}'


def test_without_a_limit_nothing_is_told() -> None:
    assert told([], Decision(1, ()), now=0.0) == {}
