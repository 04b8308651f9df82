"""Made-up series for the alerts: a good week with its ordinary noise, and what each alert is there to find.

All of it minute by minute: counters by what they gain in a minute, gauges by their value.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HOUR: Final = 60
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
Course = Callable[[int], float]
"""By the minute."""

API: Final = 'instance="api-1:8000",job="comfy-api"'
WORKER: Final = 'instance="worker-1:9100",job="comfy-worker"'
POST: Final = f'endpoint="/api/v1/jobs",method="POST",{API}'
BACKENDS: Final = ("comfyui-1", "comfyui-2", "comfyui-3")


@dataclass(slots=True)
class Series:
    """One series; a counter begins anew at the minutes of `restarts`."""

    at: Course
    counter: bool
    restarts: frozenset[int] = frozenset()


@dataclass(slots=True)
class World:
    series: dict[str, Series] = field(default_factory=dict)

    def gains(self, name: str, at: Course, restarts: frozenset[int] = frozenset()) -> None:
        self.series[name] = Series(at, counter=True, restarts=restarts)

    def is_(self, name: str, at: Course) -> None:
        self.series[name] = Series(at, counter=False)

    def written(self, minutes: int) -> list[dict[str, str]]:
        """As promtool reads them."""
        found = []
        for name, course in self.series.items():
            total, values = 0.0, []
            for minute in range(minutes + 1):
                value = course.at(minute)
                if course.counter:
                    total = value if minute in course.restarts else total + value
                    value = total
                absent = math.isnan(value)
                values.append("_" if absent else f"{value:g}" if value < 1e6 else f"{value:.0f}")
            found.append({"series": name, "values": " ".join(values)})
        return found


def same(value: float) -> Course:
    return lambda _: value


NOTHING: Final = same(0)


def from_minute(begin: int, after: Course, before: Course = NOTHING) -> Course:
    return lambda minute: after(minute) if minute >= begin else before(minute)


def good_week(*, requests: float = 300.0, jobs: float = 60.0, seed: int = 1) -> World:
    """`requests` and `jobs` a minute at noon. Errors use about half of each budget; parts fail for a moment."""
    chance = random.Random(seed)
    deploy = frozenset({2 * DAY + 600})

    def day(minute: int) -> float:
        return 0.55 - 0.45 * math.cos(2 * math.pi * (minute % DAY) / DAY)

    def noisy(most: float) -> Course:
        return lambda minute: round(most * day(minute) * chance.uniform(0.8, 1.2))

    def share(of: Mapping[int, float], part: float) -> Course:
        """Of what happens in a minute so much, by chance: Poisson's."""

        def at(minute: int) -> float:
            bound, product, found = math.exp(-of[minute] * part), chance.random(), 0
            while product > bound:
                product *= chance.random()
                found += 1
            return float(min(found, of[minute]))

        return at

    def kept(course: Course) -> dict[int, float]:
        return {minute: course(minute) for minute in range(WEEK + 1)}

    world = World()
    posts, waits = kept(noisy(requests)), kept(noisy(jobs))
    world.gains(f'comfyui_http_requests_total{{code="202",{POST}}}', posts.__getitem__, deploy)
    world.gains(f'comfyui_http_requests_total{{code="422",{POST}}}', share(posts, 0.03), deploy)
    failover = from_minute(3 * DAY + 700, same(0), share(posts, 0.0003))
    world.gains(
        f'comfyui_http_requests_total{{code="503",{POST}}}',
        lambda minute: 12 if minute == 3 * DAY + 699 else failover(minute),
        deploy,
    )
    world.gains(f'comfyui_http_requests_total{{code="500",{POST}}}', share(posts, 0.0001), deploy)
    late = kept(share(posts, 0.004))
    _histogram(world, f"comfyui_http_request_duration_seconds|{POST}", "0.25", posts, late, deploy)
    peak = kept(lambda minute: share(waits, 0.12 if 13 * HOUR < minute % DAY < 14 * HOUR else 0.01)(minute))
    _histogram(world, f"comfyui_job_wait_seconds|{WORKER}", "120.0", waits, peak)
    _histogram(world, f"comfyui_webhook_delay_seconds|{WORKER}", "5.0", waits, kept(share(waits, 0.003)))
    world.gains(f'comfyui_jobs_total{{status="succeeded",{WORKER}}}', waits.__getitem__)
    world.gains(f'comfyui_job_failures_total{{reason="EXECUTION_FAILED",{WORKER}}}', share(waits, 0.03))
    world.gains(f'comfyui_job_failures_total{{reason="ATTEMPTS_EXHAUSTED",{WORKER}}}', share(waits, 0.001))
    world.gains(f'comfyui_job_failures_total{{reason="STORAGE_FAILED",{WORKER}}}', share(waits, 0.0005))
    world.gains(f'comfyui_storage_uploads_total{{status="ok",{WORKER}}}', lambda minute: waits[minute])
    world.gains(
        f'comfyui_storage_uploads_total{{status="failed",{WORKER}}}',
        lambda minute: 6 if minute == DAY + 17 else 0,
    )
    world.is_(f"comfyui_queue_oldest_seconds{{{WORKER}}}", lambda minute: 200 * day(minute))
    for number, name in enumerate(BACKENDS):
        of = f'backend="{name}",{WORKER}'
        away = range(number * DAY + 300, number * DAY + 304)
        world.is_(f"comfyui_backend_up{{{of}}}", lambda minute, away=away: float(minute not in away))  # type: ignore[misc]
        world.is_(
            f"comfyui_circuit_breaker_state{{{of}}}",
            lambda minute, away=away: 2.0 if minute in away[1:3] else 0.0,  # type: ignore[misc]
        )
        world.is_(f"comfyui_backend_busy_ratio{{{of}}}", lambda minute: 0.85 * day(minute))
        world.gains(
            f"comfyui_backend_suspected_total{{{of}}}",
            lambda minute, number=number: float(minute == number * DAY + 77),  # type: ignore[misc]
        )
    for of in (API, WORKER):
        world.is_(f"up{{{of}}}", lambda minute: float(minute not in deploy))
        world.is_(f"process_start_time_seconds{{{of}}}", lambda minute: 2e5 if minute >= min(deploy) else 1e5)
        world.is_(f"process_open_fds{{{of}}}", lambda minute: 100 + 300 * day(minute))
        world.is_(f"process_max_fds{{{of}}}", same(65536))
        world.is_(f"comfyui_database_up{{{of}}}", lambda minute: float(minute != 3 * DAY + 699))
        world.is_(
            f'comfyui_redis_state{{state="disconnected",{of}}}',
            lambda minute: float(minute in range(4 * DAY, 4 * DAY + 3)),
        )
    for number in range(4):  # two replicas, made anew by the upgrade: others, and for a moment all are there
        old = number < 2
        world.is_(
            f"up{{{_replica(number)}}}",
            lambda minute, old=old: 1.0 if old is (minute <= min(deploy)) else math.nan,  # type: ignore[misc]
        )
    world.gains(f"comfyui_worker_replaced_total{{{WORKER}}}", lambda minute: float(minute == 5 * DAY))
    world.gains(f"comfyui_counter_drift_total{{{WORKER}}}", same(0))
    world.is_(
        f"comfyui_parked_results{{{WORKER}}}",
        lambda minute: 8.0 if minute in range(DAY + 17, DAY + 25) else 0.0,
    )
    world.gains(f'comfyui_parked_ends_total{{outcome="expired",{WORKER}}}', same(0))
    world.gains(f'comfyui_logins_total{{outcome="refused",{API}}}', noisy(3))
    rules = kept(noisy(requests))
    world.gains(f'comfyui_prompt_rules_total{{outcome="allowed",{API}}}', rules.__getitem__)
    world.gains(f'comfyui_prompt_rules_total{{outcome="failed",{API}}}', share(rules, 0.005))
    world.is_(f"comfyui_webhook_oldest_seconds{{{WORKER}}}", lambda minute: 8 * day(minute))
    return world


def _replica(number: int) -> str:
    """Of a worker under Compose."""
    return f'found_by="dns",instance="172.18.0.{number + 5}:9100",job="comfy-worker"'


def _loses_a_replica(world: World, begin: int) -> None:
    world.is_(f"up{{{_replica(0)}}}", same(1))
    world.is_(f"up{{{_replica(1)}}}", from_minute(begin, same(math.nan), same(1)))


def _histogram(
    world: World,
    name: str,
    bound: str,
    every: Mapping[int, float],
    late: Mapping[int, float],
    restarts: frozenset[int] = frozenset(),
) -> None:
    metric, _, labels = name.partition("|")
    world.gains(f"{metric}_count{{{labels}}}", every.__getitem__, restarts)
    world.gains(
        f'{metric}_bucket{{le="{bound}",{labels}}}', lambda minute: every[minute] - late[minute], restarts
    )


@dataclass(frozen=True, slots=True)
class Incident:
    """`change` is what happens from minute `begin` on; the alert is silent there, and fires by minute `by`."""

    alert: str
    change: Callable[[World, int], None]
    by: int
    begin: int = 3 * HOUR


def _gains(name: str, each: float) -> Callable[[World, int], None]:
    return lambda world, begin: world.gains(name, from_minute(begin, same(each), _before(world, name)))


def _is(name: str, value: float) -> Callable[[World, int], None]:
    return lambda world, begin: world.is_(name, from_minute(begin, same(value), _before(world, name)))


def _ends(*names: str) -> Callable[[World, int], None]:
    """The series stop: their process is gone."""

    def change(world: World, begin: int) -> None:
        for name in [one for one in world.series if one.startswith(names)]:
            world.is_(name, from_minute(begin, same(math.nan), _before(world, name)))

    return change


def _before(world: World, name: str) -> Course:
    return world.series[name].at if name in world.series else same(0)


def _both(*changes: Callable[[World, int], None]) -> Callable[[World, int], None]:
    def change(world: World, begin: int) -> None:
        for one in changes:
            one(world, begin)

    return change


def quiet() -> World:
    """The same minute again and again: nothing but an incident happens in it."""
    world = World()
    hundred, none = dict.fromkeys(range(WEEK + 1), 100.0), dict.fromkeys(range(WEEK + 1), 0.0)
    world.gains(f'comfyui_http_requests_total{{code="202",{POST}}}', same(100))
    world.gains(f'comfyui_http_requests_total{{code="503",{POST}}}', same(0))
    _histogram(world, f"comfyui_http_request_duration_seconds|{POST}", "0.25", hundred, none)
    _histogram(world, f"comfyui_job_wait_seconds|{WORKER}", "120.0", hundred, none)
    _histogram(world, f"comfyui_webhook_delay_seconds|{WORKER}", "5.0", hundred, none)
    world.gains(f'comfyui_jobs_total{{status="succeeded",{WORKER}}}', same(100))
    world.gains(f'comfyui_job_failures_total{{reason="STORAGE_FAILED",{WORKER}}}', same(0))
    world.gains(f'comfyui_storage_uploads_total{{status="ok",{WORKER}}}', same(100))
    world.gains(f'comfyui_storage_uploads_total{{status="failed",{WORKER}}}', same(0))
    for name in BACKENDS:
        world.is_(f'comfyui_backend_up{{backend="{name}",{WORKER}}}', same(1))
        world.is_(f'comfyui_backend_busy_ratio{{backend="{name}",{WORKER}}}', same(0.5))
        world.gains(f'comfyui_backend_suspected_total{{backend="{name}",{WORKER}}}', same(0))
    world.is_(f"comfyui_queue_oldest_seconds{{{WORKER}}}", same(5))
    for of in (API, WORKER):
        world.is_(f"up{{{of}}}", same(1))
        world.is_(f"comfyui_database_up{{{of}}}", same(1))
    world.gains(f'comfyui_prompt_rules_total{{outcome="allowed",{API}}}', same(100))
    world.gains(f'comfyui_webhook_deliveries_total{{status="unreadable",{WORKER}}}', same(0))
    return world


def _late(metric: str, labels: str, bound: str, share: float) -> Callable[[World, int], None]:
    return _gains(f'{metric}_bucket{{le="{bound}",{labels}}}', 100 * (1 - share))


OBJECTIVES: Final[Mapping[str, tuple[str, str, bool]]] = {
    "availability": (
        f'comfyui_http_requests_total{{code="202",{POST}}}',
        f'comfyui_http_requests_total{{code="503",{POST}}}',
        False,
    ),
    "submission": (
        f'comfyui_http_request_duration_seconds_bucket{{le="0.25",{POST}}}',
        f"comfyui_http_request_duration_seconds_count{{{POST}}}",
        True,
    ),
    "start": (
        f'comfyui_job_wait_seconds_bucket{{le="120.0",{WORKER}}}',
        f"comfyui_job_wait_seconds_count{{{WORKER}}}",
        True,
    ),
    "success": (
        f'comfyui_jobs_total{{status="succeeded",{WORKER}}}',
        f'comfyui_job_failures_total{{reason="STORAGE_FAILED",{WORKER}}}',
        False,
    ),
    "webhooks": (
        f'comfyui_webhook_delay_seconds_bucket{{le="5.0",{WORKER}}}',
        f"comfyui_webhook_delay_seconds_count{{{WORKER}}}",
        True,
    ),
}
"""Of each: what counts the good events, what counts the bad ones, and whether the latter counts the good as well."""


@dataclass(frozen=True, slots=True)
class Burn:
    """So many `times` each budget from minute `begin` to `end`; nothing bad before and after.

    `busier`: so many times the events before `begin`, which make long windows forgiving.
    """

    times: float
    begin: int
    end: int
    over: int
    """The minute at which the short window has seen that it is over, and the long one has not."""
    busier: float = 1

    def world(self, budgets: Mapping[str, float]) -> World:
        made = World()
        for name, (good, bad, both) in OBJECTIVES.items():
            share = self.times * budgets[name]
            assert share <= 1
            before = 100 * self.busier
            made.gains(good, self._course(100 * (1 - share), before))
            made.gains(bad, self._course(100 * share, 0) if not both else self._course(100, before))
        return made

    def _course(self, burning: float, before: float) -> Course:
        after = 0.0 if before == 0 else 100.0
        return lambda minute: before if minute < self.begin else burning if minute < self.end else after


BURNS: Final[Mapping[str, Burn]] = {
    "1h": Burn(times=20, begin=6 * HOUR, end=7 * HOUR, over=7 * HOUR + 10),
    "6h": Burn(times=7, begin=6 * HOUR, end=12 * HOUR, over=12 * HOUR + 30),
    "1d": Burn(times=4, begin=DAY, end=2 * DAY + 2 * HOUR, over=2 * DAY + 4 * HOUR, busier=10),
    "3d": Burn(times=2, begin=DAY, end=2 * DAY + 6 * HOUR, over=2 * DAY + 10 * HOUR),
}
"""By the long window that alone finds it, of the two that an alert has."""


_UNAVAILABLE: Final = f'comfyui_http_requests_total{{code="503",{POST}}}'
_FAILED: Final = f'comfyui_job_failures_total{{reason="STORAGE_FAILED",{WORKER}}}'
_HTTP: Final = ("comfyui_http_request_duration_seconds", POST, "0.25")
_WAIT: Final = ("comfyui_job_wait_seconds", WORKER, "120.0")
_WEBHOOK: Final = ("comfyui_webhook_delay_seconds", WORKER, "5.0")
_LONG: Final[Mapping[str, Any]] = {"begin": 4 * HOUR, "by": 12 * HOUR}

INCIDENTS: Final = (
    Incident("ComfyAvailabilityBurnsFast", _gains(_UNAVAILABLE, 5), by=4 * HOUR),
    Incident("ComfyAvailabilityBurnsSlowly", _gains(_UNAVAILABLE, 0.8), **_LONG),
    Incident("ComfySubmissionBurnsFast", _late(*_HTTP, 0.5), by=4 * HOUR),
    Incident("ComfySubmissionBurnsSlowly", _late(*_HTTP, 0.1), **_LONG),
    Incident("ComfyStartBurnsFast", _late(*_WAIT, 0.95), by=6 * HOUR),
    Incident("ComfyStartBurnsSlowly", _late(*_WAIT, 0.6), **_LONG),
    Incident("ComfySuccessBurnsFast", _gains(_FAILED, 30), by=4 * HOUR),
    Incident("ComfySuccessBurnsSlowly", _gains(_FAILED, 5), **_LONG),
    Incident("ComfyWebhooksBurnsFast", _late(*_WEBHOOK, 0.6), by=4 * HOUR),
    Incident("ComfyWebhooksBurnsSlowly", _late(*_WEBHOOK, 0.15), **_LONG),
    Incident("ComfyServiceDown", _is(f"up{{{API}}}", 0), by=3 * HOUR + 5),
    Incident("ComfyProcessDown", _is(f"up{{{WORKER}}}", 0), by=3 * HOUR + 8),
    Incident("ComfyReplicasMissing", _loses_a_replica, by=3 * HOUR + 12),
    Incident(
        "ComfyProcessRestarts",
        lambda world, begin: world.is_(
            f"process_start_time_seconds{{{WORKER}}}", lambda minute: max(minute, begin) // 5
        ),
        by=3 * HOUR + 40,
    ),
    Incident(
        "ComfyFilesNearLimit",
        _both(_is(f"process_open_fds{{{API}}}", 900), _is(f"process_max_fds{{{API}}}", 1024)),
        by=3 * HOUR + 10,
    ),
    Incident("ComfyWorkerReplaced", _gains(f"comfyui_worker_replaced_total{{{WORKER}}}", 0.1), by=4 * HOUR),
    Incident(
        "ComfyCounterDrift",
        lambda world, begin: world.gains(
            f"comfyui_counter_drift_total{{{WORKER}}}", lambda minute: float(minute == begin + 1)
        ),
        by=3 * HOUR + 5,
    ),
    Incident("ComfyDatabaseDown", _is(f"comfyui_database_up{{{API}}}", 0), by=3 * HOUR + 4),
    Incident(
        "ComfyRedisDown", _is(f'comfyui_redis_state{{state="disconnected",{API}}}', 1), by=3 * HOUR + 10
    ),
    Incident(
        "ComfyStoreFails",
        _both(
            _gains(f'comfyui_storage_uploads_total{{status="failed",{WORKER}}}', 2),
            _gains(f'comfyui_storage_uploads_total{{status="ok",{WORKER}}}', 0),
        ),
        by=3 * HOUR + 20,
    ),
    Incident("ComfyResultsParked", _is(f"comfyui_parked_results{{{WORKER}}}", 12), by=3 * HOUR + 20),
    Incident(
        "ComfyResultsExpired",
        _gains(f'comfyui_parked_ends_total{{outcome="expired",{WORKER}}}', 1),
        by=3 * HOUR + 5,
    ),
    Incident(
        "ComfyHookFails",
        _gains(f'comfyui_prompt_rules_total{{outcome="failed",{API}}}', 30),
        by=3 * HOUR + 25,
    ),
    Incident(
        "ComfyLoginsRefused",
        _gains(f'comfyui_logins_total{{outcome="refused",{API}}}', 40),
        by=3 * HOUR + 10,
    ),
    Incident("ComfyNoBackend", _ends("comfyui_backend_up"), by=3 * HOUR + 12),
    Incident(
        "ComfyBackendDown", _is(f'comfyui_backend_up{{backend="comfyui-2",{WORKER}}}', 0), by=3 * HOUR + 8
    ),
    Incident(
        "ComfyBackendDoesNotWork",
        _gains(f'comfyui_backend_suspected_total{{backend="comfyui-3",{WORKER}}}', 0.2),
        by=4 * HOUR,
    ),
    Incident(
        "ComfyBackendDoesNotWork",
        _is(f'comfyui_circuit_breaker_state{{backend="comfyui-1",{WORKER}}}', 2),
        by=3 * HOUR + 8,
    ),
    Incident(
        "ComfyQueueStands",
        _both(
            _gains(f"comfyui_job_wait_seconds_count{{{WORKER}}}", 0),
            _gains(f'comfyui_job_wait_seconds_bucket{{le="120.0",{WORKER}}}', 0),
            lambda world, begin: world.is_(
                f"comfyui_queue_oldest_seconds{{{WORKER}}}", lambda minute: 60.0 * max(minute - begin, 0)
            ),
        ),
        by=3 * HOUR + 20,
    ),
    Incident(
        "ComfyPoolIsFull",
        _both(
            *(_is(f'comfyui_backend_busy_ratio{{backend="{name}",{WORKER}}}', 0.99) for name in BACKENDS),
            _is(f"comfyui_queue_oldest_seconds{{{WORKER}}}", 400),
        ),
        by=6 * HOUR,
    ),
    Incident("ComfyWebhooksStand", _is(f"comfyui_webhook_oldest_seconds{{{WORKER}}}", 90), by=3 * HOUR + 5),
    Incident(
        "ComfyWebhooksUnreadable",
        _gains(f'comfyui_webhook_deliveries_total{{status="unreadable",{WORKER}}}', 1),
        by=3 * HOUR + 5,
    ),
)
