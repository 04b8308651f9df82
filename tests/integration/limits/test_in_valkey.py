"""Buckets that are shared: to the microsecond what one process would do, and what becomes of them without a
server.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.buckets import HandClock, open_link
from tests.support.leaping import LeapingLoop, leaping_loop
from tests.support.stack import until
from tests.support.valkey import Valkey

from comfy_api_service.limits import redis as redis_module
from comfy_api_service.limits.base import Bucket, Charge, Decision
from comfy_api_service.limits.memory import MemoryBuckets
from comfy_api_service.limits.redis import RedisBuckets
from comfy_api_service.redis_link.link import RedisLink
from comfy_api_service.telemetry import Metrics

WIDE = Charge(Bucket.per(3600, 100, kind="reads", whom="acc_wide"))
ONE = Charge(Bucket.per(60, 5, kind="reads", whom="acc_one"))


@dataclass(frozen=True)
class Shared:
    server: Valkey
    link: RedisLink
    metrics: Metrics

    def figure(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None
        return found

    def fallbacks(self) -> float:
        return self.figure("comfyui_redis_fallbacks_total", use="buckets")


@pytest.fixture
async def shared(own_valkey: Valkey) -> AsyncIterator[Shared]:
    async with open_link(own_valkey.url) as (link, metrics):
        yield Shared(own_valkey, link, metrics)


Step = tuple[list[tuple[Bucket, int]], int, int]
"""Charges, units, and microseconds that pass then."""
# A minute and more: with a shorter time the real server's clock could empty a key before the test's does.
BUCKETS = st.builds(
    Bucket,
    kind=st.sampled_from(["reads", "uploads", "logins"]),
    whom=st.sampled_from(["acc_one", "acc_two"]),
    capacity=st.integers(1, 20),
    interval=st.integers(60_000_000, 100_000_000),
)
STEPS = st.tuples(
    st.lists(
        st.tuples(BUCKETS, st.integers(0, 20)), min_size=1, max_size=4, unique_by=lambda one: one[0].key
    ),
    st.integers(1, 12),
    st.integers(-100_000_000, 600_000_000),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_memory_and_redis_decide_alike(shared_valkey: Valkey, steps: list[Step]) -> None:
    async def both() -> None:
        shared_valkey.command("FLUSHALL")
        clock = HandClock()
        own = MemoryBuckets(clock)
        async with open_link(shared_valkey.url) as (link, metrics):
            theirs = RedisBuckets(link, metrics, clock)
            for wanted, units, microseconds in steps:
                charges = [Charge(bucket, min(tokens, bucket.capacity)) for bucket, tokens in wanted]
                assert await own.take(*charges, units=units) == await theirs.take(*charges, units=units)
                clock.pass_seconds(microseconds / 1_000_000)
            assert metrics.registry.get_sample_value("comfyui_redis_fallbacks_total", {"use": "buckets"}) == 0

    asyncio.run(both())


async def test_two_processes_share_one_bucket(shared: Shared) -> None:
    async with open_link(shared.server.url) as (other_link, other_metrics):
        both = [RedisBuckets(shared.link, shared.metrics), RedisBuckets(other_link, other_metrics)]
        decisions = await asyncio.gather(*(both[n % 2].take(ONE) for n in range(40)))
    assert sum(decision.granted for decision in decisions) == 5
    assert shared.fallbacks() == 0


async def test_the_time_is_the_servers(shared: Shared) -> None:
    seconds, _ = shared.server.command("TIME")
    await RedisBuckets(shared.link, shared.metrics).take(ONE)
    assert 0 <= int(shared.server.command("GET", ONE.bucket.key)) / 1_000_000 - seconds < 12 + 60


async def test_a_key_lives_until_its_bucket_is_full_and_tells_nobodys_name(shared: Shared) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    await buckets.take(Charge(Bucket.per(60, 5, kind="logins", whom="somebody@example.com")))
    (key,) = shared.server.kept()
    assert key.startswith("cui:bucket:logins:")
    assert "somebody" not in key
    assert 0 < shared.server.command("PTTL", key) <= 12_000


async def test_several_buckets_are_one_command(shared: Shared) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    await buckets.take(ONE)  # the script is known now

    def commands() -> int:
        stats = shared.server.command("INFO", "commandstats")
        found: int = stats["cmdstat_evalsha"]["calls"]
        return found

    before = commands()
    await buckets.take(*(Charge(Bucket.per(60, 5, kind=f"kind{n}", whom="x")) for n in range(6)))
    assert commands() == before + 1


async def test_those_who_ask_at_once_are_one_command_and_decided_in_order(shared: Shared) -> None:
    """Each hears what it would have heard one after the other."""
    clock = HandClock()
    theirs, own = RedisBuckets(shared.link, shared.metrics, clock), MemoryBuckets(clock)
    await theirs.take(ONE)
    await own.take(ONE)

    def commands() -> int:
        found: int = shared.server.command("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
        return found

    before = commands()
    together = await asyncio.gather(*(theirs.take(ONE) for _ in range(7)))
    assert commands() == before + 1
    assert together == [await own.take(ONE) for _ in range(7)]
    assert [decision.granted for decision in together] == [1, 1, 1, 1, 0, 0, 0]


async def test_those_who_follow_one_another_round_by_round_are_one_command_up_to_a_number(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "MOST_TOGETHER", 5)
    buckets = RedisBuckets(shared.link, shared.metrics)
    await buckets.take(WIDE)

    async def after(rounds: int) -> Decision:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return await buckets.take(WIDE)

    before = shared.server.command("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
    decisions = await asyncio.gather(*(after(rounds) for rounds in range(9)))
    calls = shared.server.command("INFO", "commandstats")["cmdstat_evalsha"]["calls"] - before
    assert calls == 2
    assert sorted(decision.levels[0].remaining for decision in decisions) == list(range(90, 99))


@pytest.mark.parametrize("forget", [["SCRIPT", "FLUSH"], ["FLUSHALL"]])
async def test_a_server_that_forgot_everything_goes_on(shared: Shared, forget: list[str]) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    assert (await buckets.take(ONE)).granted == 1
    shared.server.command(*forget)
    assert (await buckets.take(ONE)).granted == 1
    assert shared.fallbacks() == 0


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_without_the_server_each_process_counts_for_itself(shared: Shared, how: str) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    for _ in range(5):
        assert (await buckets.take(ONE)).granted == 1
    assert (await buckets.take(ONE)).granted == 0
    getattr(shared.server, how)()
    alone = [await buckets.take(ONE) for _ in range(7)]
    assert [decision.granted for decision in alone] == [1, 1, 1, 1, 1, 0, 0]
    assert shared.fallbacks() == 7
    assert shared.figure("comfyui_redis_requests_total", use="buckets", status="failed") <= 1
    (shared.server.start if how == "kill" else shared.server.go_on)()
    await until(lambda: shared.link.up)
    assert (await buckets.take(ONE)).levels[0].limit == 5
    assert shared.fallbacks() == 7


def test_nobody_waits_for_a_hung_server_longer_than_is_promised(own_valkey: Valkey) -> None:
    async def waited() -> float:
        async with open_link(own_valkey.url) as (link, metrics):
            buckets = RedisBuckets(link, metrics)
            own_valkey.pause()
            loop = leaping_loop()
            with loop.leaping():
                began = loop.time()
                await buckets.take(ONE)
                return loop.time() - began

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        assert 0.0 < runner.run(waited()) < 0.2501


@pytest.mark.parametrize("value", ["", "abc", "-5", "inf", "nan", "1e400", "99999999999999999999"])
async def test_a_strange_value_neither_locks_out_for_long_nor_opens_the_gate(
    shared: Shared, value: str
) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    shared.server.command("SET", ONE.bucket.key, value)
    decisions: list[Decision] = [await buckets.take(ONE) for _ in range(8)]
    assert sum(decision.granted for decision in decisions) in {0, 5}
    assert decisions[-1].granted == 0
    assert decisions[-1].retry_after <= 12


async def test_a_key_of_another_kind_is_not_asked(shared: Shared) -> None:
    buckets = RedisBuckets(shared.link, shared.metrics)
    shared.server.command("RPUSH", ONE.bucket.key, "x")
    assert [(await buckets.take(ONE)).granted for _ in range(6)] == [1, 1, 1, 1, 1, 0]
    assert shared.fallbacks() == 6
    assert shared.link.up
