"""What the policy promises of a whole pool, shown in the model of one: 4 backends, 8 models, 20 accounts.

Jobs of 3 s, loads of 8 s, one model loaded at a time, two prompts on each backend.
"""

import random
from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.domain.pool_model import (
    MODELS,
    POPULARITY,
    Account,
    Claim,
    Policy,
    Pool,
    backlog,
    first_come,
    least_lane,
    offer,
    twenty,
)

from comfy_api_service.domain.scheduling import QUANTUM_LOADS, WINDOW_JOBS

JOB = 3.0
LOAD = 8.0
WINDOW = WINDOW_JOBS * JOB
WEIGHTS = (1.0, 2.0, 4.0, 8.0)


# At 0.7 of capacity.


@pytest.mark.parametrize("seed", [5, 17])
def test_under_load_few_models_are_loaded_and_everything_is_done(seed: int) -> None:
    pool = Pool(twenty())
    last = offer(pool, seed=seed, load=0.7, jobs=10_000)
    pool.run()
    assert len(pool.ended) == 10_000
    assert pool.now - last < 60
    assert pool.loads_of_100() <= 18
    assert pool.wait(0.99) <= 60 * JOB


def test_weights_make_no_light_account_fall_behind_at_that_load() -> None:
    pool = Pool(twenty(WEIGHTS))
    last = offer(pool, seed=1, load=0.7, jobs=10_000)
    pool.run()
    assert pool.now - last < 120
    assert pool.loads_of_100() <= 18


@pytest.mark.parametrize("policy", [first_come, least_lane])
def test_without_affinity_the_same_load_is_too_much(policy: Policy) -> None:
    pool = Pool(twenty(), policy=policy)
    last = offer(pool, seed=5, load=0.7, jobs=2_000)
    pool.run()
    assert pool.now - last > 0.5 * last
    assert pool.throughput() < 0.4
    assert pool.loads_of_100() > 70


# With full queues.


@pytest.mark.parametrize("weights", [(1.0,), WEIGHTS])
def test_full_queues_cost_few_loads_and_shares_stay_within_the_window(weights: tuple[float, ...]) -> None:
    def check(claim: Claim) -> None:
        _within_the_window(pool, claim)

    pool = Pool(twenty(weights), watch=check)
    backlog(pool, seed=1, jobs=1_500)
    pool.run(jobs=10_000)
    assert all(account.queued for account in pool.accounts.values())
    assert pool.loads_of_100() <= 6
    assert pool.throughput() >= 0.88


def test_shares_follow_the_weights() -> None:
    pool = Pool([Account(f"acc_{weight:g}", weight) for weight in WEIGHTS])
    backlog(pool, seed=3, jobs=7_000)
    pool.run(jobs=10_000)
    assert all(account.queued for account in pool.accounts.values())
    assert all(share == pytest.approx(1, abs=0.02) for share in pool.shares().values())


def test_no_model_waits_longer_than_the_quanta_of_all_others() -> None:
    """A wait: work in every backend's window and no claim for it, in the time of a backend."""
    since = dict.fromkeys(MODELS, 0.0)
    waits: list[float] = []

    def note(claim: Claim) -> None:
        assert claim.choice.model is not None
        waits.append(claim.at - since[claim.choice.model])
        since[claim.choice.model] = claim.at

    pool = Pool(twenty(), watch=note)
    backlog(pool, seed=1, jobs=1_500)
    pool.run(jobs=5_000)
    assert set(since) == set(MODELS)
    others = len(MODELS) - 1
    assert max(waits) <= others * (QUANTUM_LOADS * LOAD + LOAD) + JOB + LOAD


# Nobody is further behind than the window.


def _within_the_window(pool: Pool, claim: Claim, slots: float = 0.0) -> None:
    """V is at most the window ahead of each ready lane, but for what corrections give back (`slots`, seconds)."""
    for lane in claim.snapshot.lanes:
        assert pool.v - lane.vtime <= pool.window + slots / lane.weight + 1e-6, lane


@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=2, max_size=8),
    load=st.floats(0.2, 3.0),
    exact=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_at_no_moment_is_anybody_further_behind(
    seed: int, weights: list[float], load: float, *, exact: bool
) -> None:
    """With estimates that are wrong, further by one job's cost for each of the account's slots, no more."""
    chance = random.Random(seed)
    slots = 0 if exact else 3
    accounts = [Account(f"acc_{number}", weight, slots or inf) for number, weight in enumerate(weights)]
    seen = 0

    def check(claim: Claim) -> None:
        nonlocal seen
        seen += 1
        _within_the_window(pool, claim, slots * 5.0)

    pool = Pool(accounts, backends=3, load_seconds=1.0, watch=check)
    when = 0.0
    for _ in range(200):
        when += chance.expovariate(load * 3 / JOB)
        real = chance.uniform(0.1, 5.0)
        pool.submit(
            when,
            chance.choice(accounts).name,
            chance.choice([*MODELS[:5], None]),
            seconds=real,
            estimated=real if exact else chance.uniform(0.1, 5.0),
            priority=chance.choice([0, 0, 1]),
        )
    pool.run()
    assert seen == len(pool.ended) == 200


@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=2, max_size=8),
    load=st.floats(0.2, 3.0),
    backends=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_nor_when_models_come_and_go(seed: int, weights: list[float], load: float, backends: int) -> None:
    """Backends alike, whose models change together: who waits for one that is away saves up nothing."""
    chance = random.Random(seed)
    accounts = [Account(f"acc_{number}", weight) for number, weight in enumerate(weights)]

    def check(claim: Claim) -> None:
        _within_the_window(pool, claim)

    pool = Pool(accounts, backends=backends, load_seconds=1.0, watch=check)

    def change(offers: list[str | None]) -> None:
        for index in range(backends):
            pool.set_offers(index, offers)

    when, models = 0.0, [*MODELS[:4], None]
    for _ in range(300):
        when += chance.expovariate(load * backends / JOB)
        pool.submit(
            when, chance.choice(accounts).name, chance.choice(models), seconds=chance.uniform(0.1, 5.0)
        )
    for _ in range(20):
        offers = chance.sample(models, chance.randrange(len(models)))
        pool.at(chance.uniform(0, when), lambda offers=offers: change(offers))  # type: ignore[misc]
    pool.at(when, lambda: change(models))
    pool.run()
    assert len(pool.ended) == 300


# Backends that have different models.


def unlike(chance: random.Random, accounts: list[Account], **options: Any) -> tuple[Pool, dict[str, str]]:
    """A pool whose backends have different models, some in common, and the model that each account asks for."""
    pool = Pool(accounts, backends=chance.randint(2, 4), **options)
    models = MODELS[:5]
    for index in range(len(pool.backends)):
        pool.set_offers(index, chance.sample(models, chance.randint(1, 3)))
    offered = [model for model in models if serving(pool, model)]
    return pool, {account.name: chance.choice(offered) for account in accounts}


def serving(pool: Pool, model: str) -> list[int]:
    return [index for index, backend in enumerate(pool.backends) if backend.can(model)]


def test_a_newcomer_does_not_wait_for_a_backend_that_serves_others() -> None:
    """Ten accounts share one backend, one has another to itself: V there goes ten times as fast."""
    crowd = [Account(f"acc_{number}") for number in range(10)]
    pool = Pool([*crowd, Account("alone"), Account("new", newcomer=False)], backends=2)
    pool.set_offers(0, [MODELS[0]])
    pool.set_offers(1, [MODELS[1]])
    for _ in range(200):
        for account in crowd:
            pool.submit(0.0, account.name, MODELS[0])
    for _ in range(2_000):
        pool.submit(0.0, "alone", MODELS[1])
    pool.submit(3_600.0, "new", MODELS[0])
    pool.run(until=5_000)
    (wait,) = [run.waited for run in pool.runs if run.job.account == "new"]
    assert wait <= 12 * JOB


@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 8.0]), min_size=4, max_size=8),
    newcomer=st.booleans(),
)
@example(seed=0, weights=[1.0, 2.0, 1.0, 8.0, 0.5], newcomer=False)
@settings(max_examples=40, deadline=None)
def test_who_comes_waits_for_a_window_of_each_that_competes_with_him(
    seed: int, weights: list[float], *, newcomer: bool
) -> None:
    """Counted in work that the furthest of his backends takes before his first job; also without rule 6."""
    chance = random.Random(seed)
    crowd = [Account(f"acc_{number}", weight) for number, weight in enumerate(weights)]
    claims: list[Claim] = []

    def check(claim: Claim) -> None:
        claims.append(claim)
        for lane in claim.snapshot.lanes:
            assert pool.backends[claim.backend].start_tag - lane.vtime <= pool.window + 1e-6

    pool, asks = unlike(
        chance, [*crowd, Account("new", newcomer=newcomer)], mean_cost=0.3, load_seconds=1.0, watch=check
    )
    came = chance.uniform(100, 300)
    for account in crowd:
        when, load = chance.choice([0.0, came / 2]), chance.choice([0.1, 1.0, 1.0])
        while when < 2 * came:
            when += chance.expovariate(load)
            pool.submit(when, account.name, asks[account.name], seconds=chance.uniform(0.1, 5.0))
    pool.submit(came, "new", asks["new"])
    pool.run(until=came - 1e-6)
    furthest = max(serving(pool, asks["new"]), key=lambda index: pool.backends[index].start_tag)
    known = len(claims)
    pool.run()
    before = dict.fromkeys(pool.accounts, 0.0)
    for claim in claims[known:]:
        if claim.job.account == "new":
            break
        if claim.backend == furthest:
            before[claim.job.account] += claim.choice.cost
    else:
        pytest.fail("he never came to his turn")
    for name, work in before.items():
        assert work <= 1.1 * pool.window * pool.accounts[name].weight + 5.0 + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_who_competes_for_the_same_backends_gets_shares_by_weight(seed: int) -> None:
    """Whatever the others do, and also those who came later, from then on."""
    chance = random.Random(seed)
    accounts = [Account(f"acc_{number:02}", chance.choice(WEIGHTS[:3])) for number in range(12)]
    pool, asks = unlike(chance, accounts, mean_cost=0.1, load_seconds=0.5)
    came, end = 300.0, 3_000.0
    for number, account in enumerate(accounts):
        for _ in range(int(end) * len(serving(pool, asks[account.name]))):
            pool.submit(came * (number % 2), account.name, asks[account.name], seconds=1.0)
    pool.run(until=came)
    known = len(pool.runs)
    pool.run(until=end)
    done = Counter(run.job.account for run in pool.runs[known:])
    rivals: dict[tuple[int, ...], list[float]] = {}
    for account in accounts:
        assert account.queued
        rivals.setdefault(tuple(serving(pool, asks[account.name])), []).append(
            done[account.name] / account.weight
        )
    assert any(len(shares) > 1 for shares in rivals.values())
    for shares in rivals.values():
        assert shares == pytest.approx([sum(shares) / len(shares)] * len(shares), rel=0.02)


def test_a_backend_without_a_past_serves_those_alike_who_waited_for_it_and_who_did_not() -> None:
    """Some had another backend all along, some waited an hour for one with their model: nothing is saved up."""
    pool = Pool([Account(f"acc_{number}") for number in range(8)], backends=2, load_seconds=1.0)
    rare, common = MODELS[:2]
    pool.set_offers(0, [common])
    pool.set_offers(1, [])
    for number in range(8):
        for _ in range(2_000):
            pool.submit(0.0, f"acc_{number}", rare if number < 2 else common)
    pool.at(3_600.0, lambda: pool.set_offers(1, [rare, common]))
    pool.run(until=3_600.0)
    known = len(pool.runs)
    pool.run(until=5_400.0)
    done = Counter(run.job.account for run in pool.runs[known:])
    fair = sum(done.values()) / 8
    assert all(-WINDOW_JOBS <= done[name] - fair <= 2 * WINDOW_JOBS for name in pool.accounts)


# Who comes, and who comes back.


@pytest.mark.parametrize("weights", [(1.0,), WEIGHTS])
def test_a_newcomers_first_job_starts_before_anybody_elses_next_but_one(weights: tuple[float, ...]) -> None:
    """Running quanta aside: those in which the backends were when he came."""
    for seed in range(16):
        claims: list[Claim] = []
        crowd = twenty(weights)
        pool = Pool([*crowd, Account("new")], watch=claims.append)
        chance = random.Random(seed)
        for account in crowd:
            for model in chance.choices(MODELS, POPULARITY, k=150):
                pool.submit(0.0, account.name, model)
        came = chance.uniform(200, 500)
        pool.submit(came, "new", MODELS[seed % len(MODELS)])
        pool.run(until=came - 1e-6)
        known, running = len(claims), set(range(len(pool.backends)))
        pool.run(until=came + QUANTUM_LOADS * LOAD * 2)
        before: Counter[str] = Counter()
        for claim in claims[known:]:
            if claim.job.account == "new":
                break
            memory = claim.snapshot.residency
            if claim.choice.residency.spent <= memory.spent or claim.choice.model != memory.model:
                running.discard(claim.backend)
            if claim.backend not in running:
                before[claim.job.account] += 1
        else:
            pytest.fail("the newcomer never came to his turn")
        assert max(before.values(), default=0) <= 1


def test_an_account_with_a_long_queue_hardly_makes_others_wait() -> None:
    def others_wait(queue: int) -> float:
        pool = Pool(twenty())
        chance = random.Random(1)
        for model in chance.choices(MODELS, POPULARITY, k=queue):
            pool.submit(0.0, "acc_00", model)
        when, names = 0.0, list(pool.accounts)[1:]
        chance = random.Random(2)
        for _ in range(3_000):
            when += chance.expovariate(0.65 * 4 / JOB)
            pool.submit(when, chance.choice(names), chance.choices(MODELS, POPULARITY)[0])
        pool.run(until=when)
        waits = [run.waited for run in pool.runs if run.job.account != "acc_00"]
        return sum(waits) / len(waits)

    assert others_wait(10_000) <= 1.2 * others_wait(0)


def test_an_account_capped_for_an_hour_takes_nothing_from_others_afterwards() -> None:
    """Once its cap is raised it gets its share, and no arrears: nobody else waits longer for that."""

    def work_of_others(*, capped: bool) -> Counter[str]:
        claims: list[Claim] = []
        pool = Pool([Account(f"acc_{number}") for number in range(4)], backends=2, watch=claims.append)
        chance = random.Random(4)
        for name in pool.accounts:
            for model in chance.choices(MODELS[:3], k=2_000):
                pool.submit(0.0, name, model)
        if capped:
            pool.at(0.0, lambda: pool.set_cap("acc_0", 0))
            pool.at(3600.0, lambda: pool.set_cap("acc_0", inf))
        pool.run(until=4200)
        return Counter(claim.job.account for claim in claims if claim.at >= 3600)

    free, after = work_of_others(capped=False), work_of_others(capped=True)
    assert all(after[name] >= free[name] - WINDOW_JOBS for name in free)
    assert after["acc_0"] <= free["acc_0"] + 2 * WINDOW_JOBS


@pytest.mark.parametrize("comes_again", [False, True])
def test_an_account_whose_model_was_away_for_an_hour_takes_nothing_from_others(*, comes_again: bool) -> None:
    """Nor if it waits for that model only to come in with jobs for another one when the hour is over."""

    def work_of_others(*, away: bool) -> Counter[str]:
        claims: list[Claim] = []
        pool = Pool([Account(f"acc_{number}") for number in range(4)], backends=2, watch=claims.append)
        rare, *others = MODELS[:3]
        for name in pool.accounts:
            for number in range(2_000):
                pool.submit(0.0, name, rare if name == "acc_0" else others[number % 2])
        if away:
            for index in range(len(pool.backends)):
                pool.set_offers(index, others)
                if not comes_again:
                    pool.at(3600.0, lambda index=index: pool.set_offers(index, None))  # type: ignore[misc]
            for _ in range(500 if comes_again else 0):
                pool.submit(3600.0, "acc_0", others[0])
        pool.run(until=4200)
        return Counter(claim.job.account for claim in claims if claim.at >= 3600)

    free, after = work_of_others(away=False), work_of_others(away=True)
    assert all(after[name] >= free[name] - WINDOW_JOBS for name in free)
    assert after["acc_0"] <= free["acc_0"] + 2 * WINDOW_JOBS


def test_an_account_at_its_cap_leaves_the_pool_to_others() -> None:
    pool = Pool([Account("capped", cap=1), Account("free")], backends=2, load_seconds=0.0)
    for name in pool.accounts:
        for _ in range(500):
            pool.submit(0.0, name, MODELS[0])
    pool.run(jobs=600)
    assert pool.throughput() > 0.99
