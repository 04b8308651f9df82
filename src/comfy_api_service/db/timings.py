"""Measured durations: what estimates and costs rest on. Means that forget slowly; seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

from comfy_api_service.db.base import Part, Reader, Tx

KEPT = 10_000
"""Means that are remembered."""
SLOWEST = 0.15
"""Weight of the newest run once several were measured: old habits fade within some ten runs."""


@dataclass(frozen=True, slots=True)
class Timing:
    runs: int
    seconds: float


def learned(measured: Mapping[str, float], now: float) -> Part:
    """Fold new measurements into the means: the first counts whole, the n-th 1/n, never less than `SLOWEST`."""
    return (
        f"""INSERT INTO timings (key, runs, seconds, updated_at) VALUES (:key, 1, :seconds, :now)
           ON CONFLICT (key) DO UPDATE SET runs = timings.runs + 1, updated_at = excluded.updated_at,
             seconds = timings.seconds + (excluded.seconds - timings.seconds)
               * CASE WHEN timings.runs < 6 THEN 1.0 / (timings.runs + 1) ELSE {SLOWEST} END""",
        [{"key": key, "seconds": seconds, "now": now} for key, seconds in sorted(measured.items())],
    )


async def changed(tx: Reader, since: float) -> tuple[dict[str, Timing], float]:
    """The means that changed at or after a moment, and the moment to ask from next time."""
    rows = await tx.all(
        "SELECT key, runs, seconds, updated_at FROM timings WHERE updated_at >= :since", {"since": since}
    )
    newest = max((row["updated_at"] for row in rows), default=since)
    return {row["key"]: Timing(row["runs"], row["seconds"]) for row in rows}, newest


async def forget(tx: Tx) -> None:
    """Keep the means that were used most recently."""
    await tx.run(
        """DELETE FROM timings WHERE key NOT IN (
             SELECT key FROM timings ORDER BY updated_at DESC LIMIT :kept)""",
        {"kept": KEPT},
    )
