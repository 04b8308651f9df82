"""Notices of the watcher as the JSON objects of a stream."""

from typing import Any

from comfy_api_service.api import shapes
from comfy_api_service.domain.events import EventType, Preview, Progress
from comfy_api_service.domain.job import Status
from comfy_api_service.domain.times import iso
from comfy_api_service.services.views import Done, Durable, Moved, Notice, Pictured, Snapshot


def event(notice: Notice, base: str) -> dict[str, Any]:
    """A preview's picture is not in it: how that goes depends on the stream."""
    match notice:
        case Snapshot(view):
            return {
                "type": EventType.SNAPSHOT,
                "job_id": view.job.id,
                "status": view.job.status,
                "seq": view.job.seq,
                "job": shapes.job(view, base),
            }
        case Done(end, view):
            return {
                "type": EventType.DONE,
                "job_id": end.job_id,
                "status": view.job.status,
                "seq": end.seq,
                "at": iso(end.at),
                "job": shapes.job(view, base),
            }
        case Durable(change):
            return {
                "type": change.type,
                "job_id": change.job_id,
                "status": change.status,
                "seq": change.seq,
                "at": iso(change.at),
                **change.data,
            }
        case Moved(job_id, progress):
            return _progress(job_id, progress)
        case Pictured(job_id, preview):
            return _preview(job_id, preview)


def _progress(job_id: str, progress: Progress) -> dict[str, Any]:
    return {
        "type": EventType.PROGRESS,
        "job_id": job_id,
        "status": Status.RUNNING,
        "progress": progress.percent,
        "step": progress.step,
        "total": progress.total,
        "node": progress.node,
        "message": progress.message,
    }


def _preview(job_id: str, preview: Preview) -> dict[str, Any]:
    return {
        "type": EventType.PREVIEW,
        "job_id": job_id,
        "status": Status.RUNNING,
        "media_type": preview.media_type,
        "bytes": len(preview.picture),
    }
