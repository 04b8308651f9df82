"""A pool of backends under the scheduling policy, as discrete events: no clock, no thread, no database.

Each backend has one model loaded, runs one prompt at a time, and holds `depth` claimed ones. A claim decides
by what the policy alone remembers; whether a model must be loaded shows when the prompt runs.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from comfy_api_service.domain.scheduling import (
    WINDOW_JOBS,
    Choice,
    Lane,
    Need,
    Residency,
    Snapshot,
    choose,
    corrected,
    entering,
)

Policy = Callable[[Snapshot], Choice | None]


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    account: str
    model: str | None
    submitted: float
    estimated: float
    real: float
    """Seconds of a backend, without loading."""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A prompt that began on a backend."""

    job: Job
    backend: int
    at: float
    loaded: bool
    """Its model had to be loaded for it."""

    @property
    def waited(self) -> float:
        return self.at - self.job.submitted


@dataclass(frozen=True, slots=True)
class Claim:
    """A decision of the policy and what it was made on."""

    at: float
    backend: int
    job: Job
    choice: Choice
    snapshot: Snapshot


@dataclass(slots=True)
class Account:
    """A lane: jobs by model, in the order of priority and age."""

    name: str
    weight: float = 1.0
    cap: float = inf
    vtime: float = 0.0
    running: int = 0
    queued: int = 0
    waiting: dict[str | None, list[tuple[int, str, Job]]] = field(default_factory=dict)
    needs: dict[str | None, Need] = field(default_factory=dict)
    lane: Lane | None = None
    newcomer: bool = True

    @property
    def ready(self) -> bool:
        return self.queued > 0 and self.running < self.cap

    def add(self, job: Job) -> None:
        heap = self.waiting.setdefault(job.model, [])
        heapq.heappush(heap, (-job.priority, job.id, job))
        self.queued += 1
        self._renew(job.model)

    def take(self, model: str | None) -> Job:
        _, _, job = heapq.heappop(self.waiting[model])
        self.queued -= 1
        self._renew(model)
        return job

    def as_lane(self) -> Lane:
        if self.lane is None or self.lane.vtime != self.vtime:
            self.lane = Lane(self.name, self.vtime, self.weight, tuple(self.needs.values()), self.newcomer)
        return self.lane

    def _renew(self, model: str | None) -> None:
        self.lane = None
        heap = self.waiting[model]
        if not heap:
            self.needs.pop(model, None)
            return
        head = heap[0][2]
        self.needs[model] = Need(
            requirement=f"needs {model}",
            model=model,
            queued=len(heap),
            head=head.id,
            head_priority=head.priority,
            head_cost=head.estimated,
        )


@dataclass(slots=True)
class Backend:
    residency: Residency = field(default_factory=Residency)
    loaded: str | None = None
    claimed: deque[Job] = field(default_factory=deque)
    busy: bool = False
    offers: frozenset[str | None] | None = None
    """The models it has jobs run for, None for jobs without one; nothing here: it has them all."""
    start_tag: float = 0.0
    """The greatest that it gave out."""

    def can(self, model: str | None) -> bool:
        return self.offers is None or model in self.offers


class Pool:
    """Accounts and backends; `submit` and `at` lay events, `run` plays them in order."""

    def __init__(
        self,
        accounts: Iterable[Account],
        *,
        backends: int = 4,
        load_seconds: float | Mapping[str, float] = 8.0,
        mean_cost: float = 3.0,
        depth: int = 2,
        policy: Policy = choose,
        watch: Callable[[Claim], None] | None = None,
    ) -> None:
        self.accounts = {account.name: account for account in accounts}
        self.backends = [Backend() for _ in range(backends)]
        self.window = WINDOW_JOBS * mean_cost
        self.now = 0.0
        self.runs: list[Run] = []
        self.ended: list[Job] = []
        self._load_seconds = load_seconds
        self._depth = depth
        self._policy = policy
        self._watch = watch
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids = itertools.count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def submit(
        self,
        when: float,
        account: str,
        model: str | None,
        *,
        seconds: float = 3.0,
        estimated: float | None = None,
        priority: int = 0,
    ) -> None:
        def arrive() -> None:
            job = Job(
                id=f"job_{next(self._ids):09}",
                account=account,
                model=model,
                submitted=when,
                estimated=seconds if estimated is None else estimated,
                real=seconds,
                priority=priority,
            )
            lane = self.accounts[account]
            was_ready = self._ready(lane)
            lane.add(job)
            if not was_ready:
                self._enter(lane)

        self.at(when, arrive)

    def set_cap(self, account: str, cap: float) -> None:
        """Raise or lower a cap now."""
        lane = self.accounts[account]
        was_ready = self._ready(lane)
        lane.cap = cap
        if not was_ready:
            self._enter(lane)

    def set_offers(self, index: int, offers: Iterable[str | None] | None) -> None:
        """Change what a backend has jobs run for now; what it has already claimed stays with it."""
        waited = [lane for lane in self.accounts.values() if not self._ready(lane)]
        backend = self.backends[index]
        offered = None if offers is None else frozenset(offers)
        alike = [other.start_tag for other in self.backends if other.offers in {backend.offers, offered}]
        backend.start_tag = max(self._unmoved(offered), *alike)
        backend.offers = offered
        for lane in waited:
            self._enter(lane)

    def run(self, *, jobs: float = inf, until: float = inf) -> None:
        """Play until so many have ended, until this time, or until nothing happens any more."""
        while self._events and len(self.ended) < jobs and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
            for index in range(len(self.backends)):
                self._fill(index)

    def load_time(self, model: str) -> float:
        if isinstance(self._load_seconds, Mapping):
            return self._load_seconds[model]
        return self._load_seconds

    @property
    def v(self) -> float:
        """Where the backends are that are furthest; for pools of backends that are alike."""
        return max(backend.start_tag for backend in self.backends)

    def v_of(self, models: Iterable[str | None]) -> float | None:
        """V of a lane with these needs; nothing if no backend has one of the models."""
        wanted = set(models)
        tags = [backend.start_tag for backend in self.backends if any(map(backend.can, wanted))]
        return max(tags, default=None)

    def _unmoved(self, offered: frozenset[str | None] | None) -> float:
        """The greatest tag with which a backend that comes with these models moves nobody's entry."""
        shared = {
            model: v
            for model in {model for lane in self.accounts.values() for model in lane.waiting}
            if (offered is None or model in offered) and (v := self.v_of([model])) is not None
        }
        waiting = [
            v for model, v in shared.items() if any(model in lane.needs for lane in self.accounts.values())
        ]
        return min(waiting) if waiting else max(shared.values(), default=0.0)

    def _ready(self, lane: Account) -> bool:
        """Some backend could take a job of the lane."""
        return lane.ready and self.v_of(lane.needs) is not None

    def _enter(self, lane: Account) -> None:
        """The lane may have become ready, and was not."""
        v = self.v_of(lane.needs)
        if lane.ready and v is not None:
            lane.vtime = entering(lane.vtime, v, self.window)

    def _fill(self, index: int) -> None:
        backend = self.backends[index]
        while len(backend.claimed) < self._depth and self._claim(index):
            pass
        if not backend.busy and backend.claimed:
            self._start(index)

    def _claim(self, index: int) -> bool:
        backend = self.backends[index]
        snapshot = self.snapshot(index)
        choice = self._policy(snapshot)
        if choice is None:
            return False
        lane = self.accounts[choice.account]
        job = lane.take(choice.model)
        assert job.id == choice.job
        lane.vtime = choice.vtime
        lane.newcomer = False
        lane.running += 1
        backend.start_tag = max(backend.start_tag, choice.start_tag)
        backend.residency = choice.residency
        backend.claimed.append(job)
        if self._watch is not None:
            self._watch(Claim(self.now, index, job, choice, snapshot))
        return True

    def snapshot(self, index: int) -> Snapshot:
        lanes = sorted(
            (lane for lane in self._seen_by(index) if lane.needs),
            key=lambda lane: (lane.vtime, lane.account),
        )
        elsewhere: dict[str, int] = {}
        for other, backend in enumerate(self.backends):
            model = backend.residency.model
            if other != index and model is not None:
                elsewhere[model] = elsewhere.get(model, 0) + 1
        models = {model for lane in lanes for need in lane.needs if (model := need.model) is not None}
        if (resident := self.backends[index].residency.model) is not None:
            models.add(resident)
        return Snapshot(
            lanes=tuple(lanes),
            window=self.window,
            residency=self.backends[index].residency,
            elsewhere=elsewhere,
            load_times={model: self.load_time(model) for model in models},
        )

    def _seen_by(self, index: int) -> Iterator[Lane]:
        """Lanes under their cap, with those needs that a backend satisfies."""
        backend = self.backends[index]
        for account in self.accounts.values():
            if not account.ready:
                continue
            lane = account.as_lane()
            if backend.offers is not None:
                lane = replace(lane, needs=tuple([need for need in lane.needs if backend.can(need.model)]))
            yield lane

    def _start(self, index: int) -> None:
        backend = self.backends[index]
        job = backend.claimed[0]
        loads = job.model is not None and job.model != backend.loaded
        seconds = job.real
        if loads:
            assert job.model is not None
            seconds += self.load_time(job.model)
            backend.loaded = job.model
        backend.busy = True
        self.runs.append(Run(job, index, self.now, loads))
        self.at(self.now + seconds, lambda: self._end(index))

    def _end(self, index: int) -> None:
        backend = self.backends[index]
        job = backend.claimed.popleft()
        backend.busy = False
        lane = self.accounts[job.account]
        was_ready = self._ready(lane)
        lane.running -= 1
        if not was_ready:
            self._enter(lane)
        lane.vtime = corrected(lane.vtime, job.estimated, job.real, lane.weight)
        self.ended.append(job)

    # What a run amounts to.

    def loads_of_100(self) -> float:
        return 100 * sum(run.loaded for run in self.runs) / len(self.runs)

    def throughput(self) -> float:
        """Seconds of work done, over what the backends could have done without loads."""
        return sum(job.real for job in self.ended) / (self.now * len(self.backends))

    def wait(self, quantile: float) -> float:
        waits = sorted(run.waited for run in self.runs)
        return waits[min(len(waits) - 1, int(quantile * len(waits)))]

    def shares(self) -> dict[str, float]:
        """Each account's share of the work done, over what its weight entitles it to."""
        weights = sum(account.weight for account in self.accounts.values())
        total = sum(job.estimated for job in self.ended)
        work = dict.fromkeys(self.accounts, 0.0)
        for job in self.ended:
            work[job.account] += job.estimated
        return {
            name: work[name] / total * weights / account.weight for name, account in self.accounts.items()
        }


def first_come(snapshot: Snapshot) -> Choice | None:
    """The oldest job of all, whatever it needs: what the policy is compared with."""
    heads = [(need.head, lane, need) for lane in snapshot.lanes for need in lane.needs]
    if not heads:
        return None
    _, lane, need = min(heads, key=lambda head: head[0])
    return _claim_of(lane, need)


def least_lane(snapshot: Snapshot) -> Choice | None:
    """Fair order alone: the oldest job of the lane that is due."""
    if not snapshot.lanes:
        return None
    lane = snapshot.lanes[0]
    return _claim_of(lane, min(lane.needs, key=lambda need: (-need.head_priority, need.head)))


def _claim_of(lane: Lane, need: Need) -> Choice:
    return Choice(
        account=lane.account,
        requirement=need.requirement,
        job=need.head,
        model=need.model,
        cost=need.head_cost,
        start_tag=lane.vtime,
        vtime=lane.vtime + need.head_cost / lane.weight,
        residency=replace(Residency(), model=need.model),
    )


MODELS = tuple(f"checkpoints/{name}" for name in "abcdefgh")
POPULARITY = tuple(1 / rank for rank in range(1, len(MODELS) + 1))
"""Zipf's law."""


def twenty(weights: Sequence[float] = (1.0,)) -> list[Account]:
    return [Account(f"acc_{index:02}", weight=weights[index % len(weights)]) for index in range(20)]


def offer(pool: Pool, *, seed: int, load: float, jobs: int, seconds: float = 3.0) -> float:
    """Random arrivals, `load` of what the backends could do without loads; returns when the last comes."""
    chance = random.Random(seed)
    names = list(pool.accounts)
    when = 0.0
    for _ in range(jobs):
        when += chance.expovariate(load * len(pool.backends) / seconds)
        model = chance.choices(MODELS, POPULARITY)[0]
        pool.submit(when, chance.choice(names), model, seconds=seconds)
    return when


def backlog(pool: Pool, *, seed: int, jobs: int) -> None:
    """So many jobs of random models for each account, at once."""
    chance = random.Random(seed)
    for name in pool.accounts:
        for model in chance.choices(MODELS, POPULARITY, k=jobs):
            pool.submit(0.0, name, model)
