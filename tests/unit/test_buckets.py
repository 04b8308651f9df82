"""Token buckets in memory: bounded, whoever comes."""

import pytest
from tests.support.buckets import HandClock

from comfy_api_service.limits import memory
from comfy_api_service.limits.base import Bucket, Charge
from comfy_api_service.limits.memory import MemoryBuckets


async def test_of_very_many_buckets_those_used_longest_ago_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "MOST_BUCKETS", 100)
    buckets = MemoryBuckets(HandClock())
    regular = Charge(Bucket.per(3600, 1000, kind="reads", whom="regular"))
    for n in range(500):
        await buckets.take(regular)
        await buckets.take(Charge(Bucket.per(3600, 5, kind="reads", whom=f"address {n}")))
        assert len(buckets._full_at) <= 100
    assert (await buckets.take(Charge(regular.bucket, 0))).levels[0].remaining == 500


async def test_buckets_that_are_full_again_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_BUCKETS", 100)
    clock = HandClock()
    buckets = MemoryBuckets(clock)
    for n in range(101):
        await buckets.take(Charge(Bucket.per(1, 1, kind="reads", whom=f"{n}")))
        clock.pass_seconds(1)
    assert len(buckets._full_at) == 1
