"""From rows to domain values; the one place that knows both."""

from collections.abc import Iterable, Sequence
from typing import Any

from comfy_api_service.db.base import Row, loads
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.domain.job import (
    Artifact,
    CacheUse,
    Job,
    JobError,
    MetadataMode,
    OutputFormat,
    OutputOptions,
    State,
)
from comfy_api_service.domain.upload import JobInput

JOB_COLUMNS = """j.id, j.account_id, j.state, j.seq, j.attempt, j.max_attempts, j.executed, j.priority, j.params,
 j.labels, j.output, j.images, j.cost, j.requirement_id, j.queued_at, j.started_at, j.finished_at, j.deadline_at,
 j.cancel_requested_at, j.backend_id, j.batch_id, j.error, j.results, j.cache, j.generation_time, j.purged_at,
 j.ordinal, j.ordinal_cost"""


def output_document(output: OutputOptions) -> dict[str, Any]:
    return {
        "format": output.format,
        "quality": output.quality,
        "metadata": output.metadata,
        "files": output.files,
        "bytes": output.bytes,
    }


def output_from(text: str) -> OutputOptions:
    document = loads(text)
    return OutputOptions(
        format=OutputFormat(document["format"]),
        quality=document["quality"],
        metadata=MetadataMode(document["metadata"]),
        files=document.get("files"),
        bytes=document.get("bytes"),
    )


def inputs_document(inputs: Iterable[JobInput]) -> list[list[str]]:
    return [[one.node_id, one.input, one.upload_id] for one in inputs]


def inputs_from(text: str | None) -> tuple[JobInput, ...]:
    return tuple(JobInput(*one) for one in loads(text) or ())


def error_document(error: JobError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "details": dict(error.details),
        "node_id": error.node_id,
    }


def error_from(text: str | None) -> JobError | None:
    if text is None:
        return None
    document = loads(text)
    return JobError(Code(document["code"]), document["message"], document["details"], document.get("node_id"))


def job_from(row: Row, artifacts: Iterable[Artifact] = ()) -> Job:
    """A job from `JOB_COLUMNS`."""
    return Job(
        id=row["id"],
        account_id=row["account_id"],
        state=State(row["state"]),
        seq=row["seq"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        executed=row["executed"],
        priority=row["priority"],
        params=loads(row["params"]),
        labels=loads(row["labels"]),
        output=output_from(row["output"]),
        images=row["images"],
        cost=row["cost"],
        requirement_id=row["requirement_id"],
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        deadline_at=row["deadline_at"],
        cancel_requested_at=row["cancel_requested_at"],
        backend_id=row["backend_id"],
        batch_id=row["batch_id"],
        error=error_from(row["error"]),
        values=loads(row["results"]) or {},
        cache=CacheUse(row["cache"]) if row["cache"] else None,
        generation_time=row["generation_time"],
        purged_at=row["purged_at"],
        ordinal=row["ordinal"],
        ordinal_cost=row["ordinal_cost"],
        artifacts=tuple(artifacts),
    )


def artifact_from(row: Row) -> Artifact:
    return Artifact(
        index=row["idx"],
        node_id=row["node_id"],
        kind=row["kind"],
        media_type=row["media_type"],
        bytes=row["bytes"],
        sha256=row["sha256"],
        key=row["key"],
        width=row["width"],
        height=row["height"],
        seed=None if row["seed"] is None else int(row["seed"]),
        meta=loads(row["meta"]),
    )


def event_from(row: Row) -> Event:
    return Event(
        job_id=row["job_id"],
        seq=row["seq"],
        type=EventType(row["type"]),
        status=row["status"],
        at=row["at"],
        data=loads(row["data"]),
    )


def grouped(rows: Sequence[Row], by: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return groups
