"""What every keeper of token buckets must do; a new one joins by a line in `MAKERS`. The clock is the test's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tests.support.buckets import HandClock, open_link
from tests.support.valkey import Valkey

from comfy_api_service.limits.base import Bucket, Buckets, Charge
from comfy_api_service.limits.memory import MemoryBuckets
from comfy_api_service.limits.redis import RedisBuckets

MINUTE = 60.0


@asynccontextmanager
async def in_memory(_: Valkey, clock: HandClock) -> AsyncIterator[Buckets]:
    yield MemoryBuckets(clock)


@asynccontextmanager
async def in_valkey(server: Valkey, clock: HandClock) -> AsyncIterator[Buckets]:
    async with open_link(server.url) as (link, metrics):
        yield RedisBuckets(link, metrics, clock)
        assert metrics.registry.get_sample_value("comfyui_redis_fallbacks_total", {"use": "buckets"}) == 0


MAKERS: dict[str, Callable[[Valkey, HandClock], AbstractAsyncContextManager[Buckets]]] = {
    "memory": in_memory,
    "valkey": in_valkey,
}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=MAKERS)
async def buckets(
    request: pytest.FixtureRequest, shared_valkey: Valkey, clock: HandClock
) -> AsyncIterator[Buckets]:
    async with MAKERS[request.param](shared_valkey, clock) as made:
        yield made


def bucket(tokens: int = 5, seconds: float = MINUTE, *, whom: str = "acc_one", kind: str = "reads") -> Bucket:
    return Bucket.per(seconds, tokens, kind=kind, whom=whom)


async def granted(buckets: Buckets, *charges: Charge, units: int = 1) -> int:
    return (await buckets.take(*charges, units=units)).granted


async def test_as_many_as_it_holds_then_one_for_each_interval(buckets: Buckets, clock: HandClock) -> None:
    one = Charge(bucket(5, MINUTE))
    assert [await granted(buckets, one) for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]
    clock.pass_seconds(11.999)
    assert await granted(buckets, one) == 0
    clock.pass_seconds(0.001)
    assert [await granted(buckets, one) for _ in range(2)] == [1, 0]
    clock.pass_seconds(24)
    assert [await granted(buckets, one) for _ in range(3)] == [1, 1, 0]


async def test_nothing_is_saved_up_beyond_what_it_holds(buckets: Buckets, clock: HandClock) -> None:
    one = Charge(bucket(3))
    assert await granted(buckets, one) == 1
    clock.pass_seconds(1_000_000)
    assert [await granted(buckets, one) for _ in range(4)] == [1, 1, 1, 0]


async def test_the_figures_of_a_decision(buckets: Buckets, clock: HandClock) -> None:
    one = Charge(bucket(5, MINUTE))
    decision = await buckets.take(one)
    (level,) = decision.levels
    assert (level.limit, level.remaining, level.reset_after, level.retry_after) == (5, 4, 12, 0)
    for _ in range(4):
        decision = await buckets.take(one)
    (level,) = decision.levels
    assert (level.remaining, level.reset_after, level.retry_after) == (0, 60, 12)
    clock.pass_seconds(2)
    decision = await buckets.take(one)
    assert decision.granted == 0
    assert decision.levels[0].reset_after == 58
    assert decision.retry_after == 10


async def test_several_buckets_are_charged_together_or_not_at_all(buckets: Buckets) -> None:
    wide, narrow = Charge(bucket(10, kind="reads")), Charge(bucket(2, kind="uploads"))
    assert [await granted(buckets, wide, narrow) for _ in range(3)] == [1, 1, 0]
    decision = await buckets.take(Charge(wide.bucket, 0), Charge(narrow.bucket, 0))
    assert [level.remaining for level in decision.levels] == [8, 0]
    assert decision.granted == 1
    refused = await buckets.take(wide, narrow)
    assert refused.granted == 0
    assert [level.retry_after for level in refused.levels] == [0, 30]
    assert refused.retry_after == 30


async def test_of_several_units_as_many_as_there_are(buckets: Buckets) -> None:
    one, double = Charge(bucket(7, kind="submissions")), Charge(bucket(10, kind="images"), 2)
    assert await granted(buckets, one, double, units=10) == 5
    assert await granted(buckets, one, units=10) == 2
    assert await granted(buckets, one, units=10) == 0


async def test_looking_takes_nothing(buckets: Buckets) -> None:
    look = Charge(bucket(2), 0)
    for _ in range(5):
        assert (await buckets.take(look)).levels[0].remaining == 2
    await buckets.take(Charge(bucket(2)))
    assert (await buckets.take(look)).levels[0].remaining == 1


async def test_everybody_has_his_own_bucket_for_each_kind(buckets: Buckets) -> None:
    strange = ["acc_one", "acc_two", "", "x" * 10_000, "ä\ud800\0\n", "::1", "a:b", "a", "b"]
    for whom in strange:
        for kind in ("reads", "uploads"):
            one = Charge(bucket(1, whom=whom, kind=kind))
            assert [await granted(buckets, one) for _ in range(2)] == [1, 0]


async def test_a_limit_that_changed_counts_at_once(buckets: Buckets, clock: HandClock) -> None:
    for _ in range(100):
        await buckets.take(Charge(bucket(100)))
    small = Charge(bucket(2))
    assert (await buckets.take(small)).retry_after == 30  # not the minute that a hundred took
    clock.pass_seconds(30)
    assert await granted(buckets, small) == 1
    large = Charge(bucket(100))
    assert (await buckets.take(large)).retry_after == 0.6
    clock.pass_seconds(6)
    assert await granted(buckets, large, units=100) == 10


async def test_a_clock_that_was_set_back_locks_nobody_out(buckets: Buckets, clock: HandClock) -> None:
    one = Charge(bucket(5))
    for _ in range(5):
        await buckets.take(one)
    clock.pass_seconds(-3600)
    assert (await buckets.take(one)).retry_after == 12


async def test_the_same_bucket_taken_from_at_once_is_never_overdrawn(buckets: Buckets) -> None:
    decisions = await asyncio.gather(*(buckets.take(Charge(bucket(7))) for _ in range(50)))
    assert sum(decision.granted for decision in decisions) == 7


async def test_what_can_never_be_had_is_refused_as_a_mistake(buckets: Buckets) -> None:
    with pytest.raises(ValueError, match="never be had"):
        Charge(bucket(5), 6)
    with pytest.raises(ValueError, match="never be had"):
        Charge(bucket(5), -1)
    for tokens, seconds in ((0, 60.0), (5, 0.0), (5, 1e12)):
        with pytest.raises(ValueError, match="at least one token"):
            bucket(tokens, seconds)
    with pytest.raises(ValueError, match="each bucket once"):
        await buckets.take(Charge(bucket()), Charge(bucket()))
    with pytest.raises(ValueError, match="at least one unit"):
        await buckets.take(Charge(bucket()), units=0)
