"""A finished result: all that its job's end needs, also when that comes much later and in another process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from comfy_api_service.db.endings import Ending
from comfy_api_service.db.transitions import AttemptKey, Fence
from comfy_api_service.domain.job import Artifact, CacheUse, State


class ParcelDamaged(Exception):
    """What was read is no parcel, or its files are not what it says."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Holds nothing of what the caller asked for: prompts stay in the database."""

    job_id: str
    attempt: int
    worker_id: str
    """Who answered for the attempt when it was packed."""
    artifacts: tuple[Artifact, ...]
    keys: frozenset[str]
    """Those of the artifacts that wait on this machine's disk; the others are in the store."""
    values: Mapping[str, Any]
    cache: CacheUse | None
    produced: int
    """Pictures to charge for."""
    backend_seconds: float | None
    measured: Mapping[str, float]
    images: int
    """What a cancel is charged with."""
    made_at: float
    """Seconds since the epoch."""
    dispatched_at: float = 0.0
    trace_context: str | None = None

    @property
    def key(self) -> AttemptKey:
        return self.job_id, self.attempt

    @property
    def fence(self) -> Fence:
        return Fence(self.job_id, self.attempt, self.worker_id)

    def ending(self, expires_at: float) -> Ending:
        """The job's success, with artifacts that are kept until `expires_at`."""
        return Ending(
            State.SUCCEEDED,
            artifacts=self.artifacts,
            values=self.values,
            cache=self.cache,
            produced=self.produced,
            backend_seconds=self.backend_seconds,
            expires_at=expires_at,
        )


def packed(parcel: Parcel) -> bytes:
    return orjson.dumps(parcel, default=sorted)


def unpacked(data: bytes) -> Parcel:
    """Raises `ParcelDamaged`."""
    try:
        found = orjson.loads(data)
        return Parcel(
            **{
                **found,
                "artifacts": tuple(Artifact(**one) for one in found["artifacts"]),
                "keys": frozenset(found["keys"]),
                "cache": None if found["cache"] is None else CacheUse(found["cache"]),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise ParcelDamaged("This is no parcel.") from fault
