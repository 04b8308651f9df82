"""What a job will cost, and when it will start; both from measured durations, both estimates."""

from collections.abc import Mapping

from comfy_api_service.db.counters import LaneState
from comfy_api_service.db.timings import Timing
from comfy_api_service.domain.job import Job, State
from comfy_api_service.domain.submission import Place
from comfy_api_service.services.pool import PoolView

DEFAULT_SECONDS = 10.0
"""The cost of a job before anything was measured."""
LEAST_SECONDS = 0.01


def price(timing_key: str, primary: str | None, pixel_steps: float, timings: Mapping[str, Timing]) -> float:
    """Seconds of a backend: of just such jobs; else by work, of the same model, of any; else a guess."""
    exact = timings.get(timing_key)
    if exact is not None:
        return max(exact.seconds, LEAST_SECONDS)
    for key in (f"unit:{primary}", "unit"):
        unit = timings.get(key)
        if unit is not None and pixel_steps > 0:
            return min(max(unit.seconds * pixel_steps, LEAST_SECONDS), 3600.0)
    return DEFAULT_SECONDS


def place(
    pool: PoolView, *, now: float, weight: float, ahead: int, ahead_cost: float, open_seconds: float
) -> Place:
    """Where a job stands that has `ahead` jobs before it in its own lane, and backends work to finish first.

    Fair queueing serves the lane at its share of the pool; nobody waits for more work than there is.
    """
    others = max(pool.load.active_weight - weight, 0.0)
    stretch = (others + weight) / weight
    position = 1 + min(round(ahead * stretch), max(ahead, pool.load.queued))
    if pool.online == 0:
        return Place(position, None)
    work = min(ahead_cost * stretch, max(ahead_cost, pool.load.queued_cost))
    return Place(position, now + (work + open_seconds) / pool.online)


def place_of(
    job: Job, lane: LaneState | None, pool: PoolView, *, now: float, open_seconds: float
) -> Place | None:
    """The place of a job that waits; None for one that does not."""
    if job.state is State.DISPATCHED:
        waits = max(open_seconds - job.cost, 0.0)
        return Place(1, None if pool.online == 0 else now + waits / pool.online)
    if job.state is not State.READY or lane is None:
        return None
    served = lane.entered - lane.queued
    served_cost = lane.entered_cost - lane.queued_cost
    return place(
        pool,
        now=now,
        weight=lane.weight,
        ahead=max(job.ordinal - served - 1, 0),
        ahead_cost=max(job.ordinal_cost - job.cost - served_cost, 0.0),
        open_seconds=open_seconds,
    )
