"""What one account's trouble does to the others, and how long a model waits, in the model of a pool.

The others' throughput and shares are what they would be without the account whose model is away, whose cap is raised
after an hour, or that stands at its cap with a long queue.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.domain.pool_model import MODELS, Account, Claim, Pool

from comfy_api_service.domain.scheduling import QUANTUM_LOADS, Snapshot

JOB = 3.0
HOUR = 3600.0
OTHERS = {"acc_1": 1.0, "acc_2": 2.0, "acc_4": 4.0, "acc_8": 8.0}
PRESENT, AWAY = MODELS[:3], MODELS[7]


@dataclass
class Day:
    """Full queues of the others for so long, and what became of them."""

    pool: Pool
    claims: list[Claim] = field(default_factory=list)

    def done(self, since: float = 0.0) -> Counter[str]:
        """Seconds of work that each account was given."""
        work: Counter[str] = Counter()
        for claim in self.claims:
            if claim.at >= since:
                work[claim.job.account] += round(claim.choice.cost)
        return work

    def others(self) -> list[tuple[float, int, str, str | None]]:
        """What was decided for them, in order."""
        return [
            (claim.at, claim.backend, claim.job.account, claim.job.model)
            for claim in self.claims
            if claim.job.account in OTHERS
        ]


def day(odd: Account | None, *, until: float, model: str = PRESENT[0], raised_at: float = inf) -> Day:
    """Four backends that have three models; `odd` has a long queue for one model, and comes last."""
    claims: list[Claim] = []
    accounts = [Account(name, weight) for name, weight in OTHERS.items()]
    pool = Pool([*accounts, *([] if odd is None else [odd])], load_seconds=2.0, watch=claims.append)
    for index in range(len(pool.backends)):
        pool.set_offers(index, PRESENT)
    chance = random.Random(11)
    for account in accounts:
        for _ in range(int(until / JOB * 4 * account.weight / 10)):
            pool.submit(0.0, account.name, chance.choice(PRESENT), seconds=JOB)
    if odd is not None:
        for _ in range(int(until / JOB * 4)):
            pool.submit(0.0, odd.name, model, seconds=JOB)
        pool.at(raised_at, lambda: pool.set_cap(odd.name, inf))
    pool.run(until=until)
    assert all(account.queued for account in accounts)
    return Day(pool, claims)


def by_weight(day: Day, since: float = 0.0) -> list[float]:
    """The others' work over their weights: nobody further ahead than the window, as anywhere."""
    work = day.done(since)
    shares = [work[name] / weight for name, weight in OTHERS.items()]
    assert max(shares) - min(shares) <= day.pool.window + JOB
    return shares


def test_jobs_for_a_model_that_is_away_change_nothing_for_others() -> None:
    beside, without = day(Account("odd", 8.0), until=HOUR, model=AWAY), day(None, until=HOUR)
    assert beside.others() == without.others()
    assert len(without.others()) > 3_000
    by_weight(beside)


def test_a_cap_that_is_raised_after_an_hour_gives_a_share_and_no_arrears() -> None:
    until = 1.5 * HOUR
    beside = day(Account("odd", 8.0, cap=0), until=until, raised_at=HOUR)
    without = day(None, until=until)
    before = [one for one in without.others() if one[0] < HOUR]
    assert beside.others()[: len(before)] == before
    shares = by_weight(beside, HOUR)
    odd = beside.done(HOUR)["odd"] / 8.0
    assert abs(odd - sum(shares) / len(shares)) <= beside.pool.window + JOB
    assert beside.done(HOUR).total() >= 0.99 * without.done(HOUR).total()


@pytest.mark.parametrize("cap", [1, 2, 4])
def test_who_stands_at_its_cap_leaves_all_the_rest_to_others_by_their_weights(cap: int) -> None:
    """By its weight it would have the half of all eight places."""
    beside, without = day(Account("odd", 15.0, cap=cap), until=HOUR), day(None, until=HOUR)
    by_weight(beside)
    work = beside.done()
    assert work.total() >= 0.99 * without.done().total()
    assert 0 < work["odd"] <= cap * HOUR
    free = day(Account("odd", 15.0), until=HOUR)
    assert work["odd"] <= free.done()["odd"] + beside.pool.window
    assert sum(work[name] for name in OTHERS) >= without.done().total() - work["odd"] - 0.01 * 4 * HOUR


@given(
    seed=st.integers(0, 2**32),
    load=st.floats(0.3, 2.0),
    backends=st.integers(1, 4),
    capped=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_whatever_comes_who_cannot_run_changes_nothing(
    seed: int, load: float, backends: int, *, capped: bool
) -> None:
    """Neither decision nor moment is another one than without it: capped at nothing, or its model away."""

    def decisions(*, odd: bool) -> list[tuple[float, int, str, float]]:
        chance = random.Random(seed)
        claims: list[Claim] = []
        accounts = [Account(name, weight) for name, weight in OTHERS.items()]
        stuck = [Account("odd", 8.0, cap=0 if capped else inf)] if odd else []
        pool = Pool([*accounts, *stuck], backends=backends, load_seconds=2.0, watch=claims.append)
        for index in range(backends):
            pool.set_offers(index, [*PRESENT, None])
        when = 0.0
        for _ in range(400):
            when += chance.expovariate(load * backends / JOB)
            name, model = chance.choice(accounts).name, chance.choice([*PRESENT, None])
            pool.submit(when, name, model, seconds=chance.uniform(0.1, 6.0), priority=chance.choice([0, 1]))
            if odd and seed % 3:
                pool.submit(when, "odd", PRESENT[0] if capped else AWAY)
        pool.run()
        assert len(pool.ended) == 400
        return [(claim.at, claim.backend, claim.job.account, claim.job.submitted) for claim in claims]

    assert decisions(odd=True) == decisions(odd=False)


# No model waits longer than the quanta of all others together.


@dataclass
class Wait:
    """A model with work in a backend's window that the backend does not take."""

    seconds: float = 0.0
    others: set[str] = field(default_factory=set)


def working(snapshot: Snapshot) -> set[str]:
    """The models that a backend could work for now: of lanes within the window, and what may go in them."""
    furthest = min(lane.vtime for lane in snapshot.lanes) + snapshot.window
    return {
        need.model
        for lane in snapshot.lanes
        if lane.vtime <= furthest
        for need in lane.needs
        if need.model is not None and need.head_priority == max(other.head_priority for other in lane.needs)
    }


class Waits:
    """Holds each claim against the promise; seconds are those that a backend gives to others."""

    def __init__(self, quanta: dict[str, float], longest_job: float) -> None:
        self.longest = 0.0
        """Over the bound: 1 is the promise itself."""
        self._quanta = quanta
        self._longest_job = longest_job
        self._waits: dict[int, dict[str, Wait]] = {}

    def __call__(self, claim: Claim) -> None:
        able, elsewhere = working(claim.snapshot), set(claim.snapshot.elsewhere)
        waits = self._waits.setdefault(claim.backend, {})
        taken = claim.choice.model
        if taken is None:
            self._waits[claim.backend] = {model: waits[model] for model in waits.keys() & (able - elsewhere)}
            return
        self._waits[claim.backend] = {model: waits.get(model, Wait()) for model in able - elsewhere - {taken}}
        for model, wait in self._waits[claim.backend].items():
            wait.others |= able - {model}
            wait.seconds += claim.choice.cost
            bound = sum(self._quanta[other] for other in wait.others)
            assert wait.seconds <= bound + self._longest_job, model
            self.longest = max(self.longest, wait.seconds / bound)


@given(
    seed=st.integers(0, 2**32),
    load=st.floats(0.4, 3.0),
    backends=st.integers(1, 3),
    lanes=st.integers(1, 12),
    skew=st.floats(0.0, 3.0),
)
@settings(max_examples=20, deadline=None)
def test_no_model_waits_longer_than_the_quanta_of_all_others(
    seed: int, load: float, backends: int, lanes: int, skew: float
) -> None:
    """2 000 arrivals at random; on each backend, while no other one has the model loaded."""
    chance = random.Random(seed)
    loads = {model: chance.uniform(0.6, 2.0) for model in MODELS}
    popularity = [1 / rank**skew for rank in range(1, len(MODELS) + 1)]
    accounts = [Account(f"acc_{number:02}", chance.choice([1.0, 2.0, 8.0])) for number in range(lanes)]
    waits = Waits({model: QUANTUM_LOADS * seconds for model, seconds in loads.items()}, longest_job=5.0)
    pool = Pool(accounts, backends=backends, load_seconds=loads, watch=waits)
    when = 0.0
    for _ in range(2_000):
        when += chance.expovariate(load * backends / JOB)
        model = None if chance.random() < 0.05 else chance.choices(MODELS, popularity)[0]
        pool.submit(when, chance.choice(accounts).name, model, seconds=chance.uniform(0.1, 5.0))
    pool.run()
    assert len(pool.ended) == 2_000


def test_that_bound_is_come_near_to() -> None:
    """With full queues of all models, most of them for one."""
    waits = Waits(dict.fromkeys(MODELS, QUANTUM_LOADS * 2.0), longest_job=JOB)
    pool = Pool([Account("one")], backends=1, load_seconds=2.0, watch=waits)
    for model in (*MODELS, *[MODELS[0]] * 20):
        for _ in range(150):
            pool.submit(0.0, "one", model)
    pool.run(jobs=1_500)
    assert waits.longest > 0.95
