"""From the values of the use cases to plain JSON values; `schemas/` describes what comes out."""

from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.api import addresses
from comfy_api_service.domain.job import Artifact, Job, JobError, Status
from comfy_api_service.domain.submission import Accepted
from comfy_api_service.domain.times import iso, iso_or_none
from comfy_api_service.domain.upload import Upload
from comfy_api_service.services.views import Batch, BatchItem, JobView, Link, ModelEntry

Shape = dict[str, Any]

WORDS: Final[Mapping[Status, str]] = {
    Status.QUEUED: "queued",
    Status.RUNNING: "processing",
    Status.SUCCEEDED: "completed",
    Status.FAILED: "failed",
    Status.CANCELED: "canceled",
}
"""The words that `generate` has for the states."""


def submitted(accepted: Accepted, base: str) -> Shape:
    job_id, place = accepted.job_id, accepted.place
    url = addresses.job_url(base, job_id)
    return {
        "job_id": job_id,
        "status": accepted.status,
        "queued_at": iso(accepted.queued_at),
        "location": url,
        "status_url": url,
        "events_url": f"{url}/events",
        "websocket_url": addresses.websocket_url(base, job_id),
        "queue_position": None if place is None else place.position,
        "estimated_start_at": None if place is None else iso_or_none(place.start_at),
        "cost": None
        if accepted.cost is None
        else {"pixel_steps": accepted.cost.pixel_steps, "seconds": accepted.cost.seconds},
    }


def upload(one: Upload) -> Shape:
    return {
        "upload_id": one.id,
        "sha256": one.sha256,
        "media_type": one.media_type,
        "width": one.width,
        "height": one.height,
        "bytes": one.bytes,
        "created_at": iso(one.created_at),
        "expires_at": iso(one.expires_at),
    }


def job(view: JobView, base: str) -> Shape:
    one, place, progress = view.job, view.place, view.progress
    running = one.status is Status.RUNNING
    return {
        "job_id": one.id,
        "status": one.status,
        "canceling": one.canceling,
        "progress": _percent(view),
        "current_step": progress.step if progress is not None and running else None,
        "total_steps": progress.total if progress is not None and running else None,
        "current_node": progress.node if progress is not None and running else None,
        "preview_url": addresses.preview_url(base, one.id) if view.has_preview and running else None,
        "queue_position": None if place is None else place.position,
        "estimated_start_at": None if place is None else iso_or_none(place.start_at),
        "params": _params(one),
        "labels": one.labels,
        "priority": one.priority,
        "attempts": one.attempt,
        "max_attempts": one.max_attempts,
        "backend": view.backend,
        "batch_id": one.batch_id,
        "queued_at": iso(one.queued_at),
        "started_at": iso_or_none(one.started_at),
        "finished_at": iso_or_none(one.finished_at),
        "deadline_at": iso_or_none(one.deadline_at),
        "purged_at": iso_or_none(one.purged_at),
        "result": _result(view, base) if one.status is Status.SUCCEEDED else None,
        "error": _error(one.error),
    }


def _params(one: Job) -> Mapping[str, Any]:
    """But for a graph that waits there for the first inventory."""
    if "graph" not in one.params:
        return one.params
    return {name: value for name, value in one.params.items() if name not in ("graph", "node_policy")}


def generation(view: JobView, base: str) -> Shape:
    one = view.job
    images = artifacts(view, base)
    metadata = {
        **_params(one),
        "generation_time": one.generation_time,
        "queue_time": _queue_time(one),
        "backend": view.backend,
        "cache": one.cache,
    }
    return {
        "job_id": one.id,
        "status": WORDS[one.status],
        "image_url": images[0]["url"] if images else None,
        "images": images,
        "metadata": metadata,
        "created_at": iso(one.queued_at),
        "completed_at": iso_or_none(one.finished_at),
        "status_url": addresses.generation_url(base, one.id),
        "error": _error(one.error),
    }


def batch(one: Batch, base: str) -> Shape:
    items = [_item(item, one.created_at, base) for item in one.items]
    words = [item["status"] for item in items]
    return {
        "batch_id": one.id,
        "status_url": addresses.batch_url(base, one.id),
        "created_at": iso(one.created_at),
        "jobs": items,
        "total": one.total,
        "completed": words.count("completed"),
        "failed": words.count("failed") + words.count("canceled"),
    }


def _item(item: BatchItem, created_at: float, base: str) -> Shape:
    if item.view is not None:
        return {"index": item.index, **generation(item.view, base)}
    return {
        "index": item.index,
        "job_id": None,
        "status": "failed",
        "image_url": None,
        "images": [],
        "metadata": {},
        "created_at": iso(created_at),
        "completed_at": iso(created_at),
        "status_url": None,
        "error": None if item.error is None else dict(item.error),
    }


def model(entry: ModelEntry) -> Shape:
    return {"kind": entry.kind, "name": entry.name, "backends": entry.backends}


def artifacts(view: JobView, base: str) -> list[Shape]:
    """With their links; none after deletion."""
    return [
        _artifact(artifact, link, base)
        for artifact, link in zip(view.job.artifacts, view.links, strict=bool(view.links))
    ]


def _artifact(artifact: Artifact, link: Link, base: str) -> Shape:
    return {
        "url": addresses.absolute(base, link.url),
        "url_expires_at": iso(link.expires_at),
        "index": artifact.index,
        "node_id": artifact.node_id,
        "kind": artifact.kind,
        "media_type": artifact.media_type,
        "width": artifact.width,
        "height": artifact.height,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "seed": artifact.seed,
        "meta": artifact.meta,
    }


def _result(view: JobView, base: str) -> Shape:
    one = view.job
    return {
        "artifacts": artifacts(view, base),
        "values": one.values,
        "generation_time": one.generation_time,
        "queue_time": _queue_time(one),
        "cache": one.cache,
    }


def _error(error: JobError | None) -> Shape | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "node_id": error.node_id,
        "retryable": error.retryable,
    }


def _percent(view: JobView) -> float:
    if view.job.status is Status.SUCCEEDED:
        return 100.0
    if view.progress is None or view.job.status is not Status.RUNNING:
        return 0.0
    return view.progress.percent


def _queue_time(one: Job) -> float | None:
    """Seconds from acceptance to the start of the last attempt."""
    return None if one.started_at is None else max(one.started_at - one.queued_at, 0.0)
