"""The `/api/jobs` view of queue and history, from 0.4 on. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from .prompts import Item

STATUSES = ("pending", "in_progress", "completed", "failed")
NEWER_STATUSES = (*STATUSES, "cancelled")
PREVIEWABLE = frozenset({"images", "video", "audio"})
ENDS = ("execution_success", "execution_error", "execution_interrupted")


def queued(item: Item, status: str) -> dict[str, Any]:
    """A prompt that is not over yet."""
    job = {
        "id": item.prompt_id,
        "status": status,
        "priority": item.number,
        "create_time": item.extra_data.get("create_time"),
        "outputs_count": 0,
        "workflow_id": _workflow_id(item.extra_data),
    }
    return {k: v for k, v in job.items() if v is not None}


def finished(prompt_id: str, entry: Mapping[str, Any], *, whole: bool, newer: bool) -> dict[str, Any]:
    """A prompt in history; `whole` adds outputs, messages and graph."""
    number, _, graph, extra_data, _ = entry["prompt"]
    times: dict[str, Any] = {}
    error, interrupted = None, False
    for name, data in entry["status"]["messages"]:
        if name == "execution_start":
            times["start"] = data["timestamp"]
        elif name in ENDS:
            times["end"] = data["timestamp"]
            error = data if name == "execution_error" else None
            interrupted = name == "execution_interrupted"
    status = "completed" if entry["status"]["status_str"] == "success" else "failed"
    count, preview = _outputs(entry["outputs"])
    job = {
        "id": prompt_id,
        "status": "cancelled" if newer and interrupted else status,
        "priority": number,
        "create_time": extra_data.get("create_time"),
        "execution_start_time": times.get("start"),
        "execution_end_time": times.get("end"),
        "execution_error": error,
        "outputs_count": count,
        "preview_output": preview,
        "workflow_id": _workflow_id(extra_data),
    }
    job = {k: v for k, v in job.items() if v is not None}
    if whole:
        job["outputs"] = entry["outputs"]
        job["execution_status"] = entry["status"]
        job["workflow"] = {"prompt": graph, "extra_data": extra_data}
    return job


def ordered(jobs: list[dict[str, Any]], by: str, *, newest_first: bool) -> list[dict[str, Any]]:
    def duration(job: dict[str, Any]) -> int:
        start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
        return int(end - start) if start and end else 0

    def created(job: dict[str, Any]) -> int:
        return int(job.get("create_time", 0))

    return sorted(jobs, key=duration if by == "execution_duration" else created, reverse=newest_first)


def _workflow_id(extra_data: Mapping[str, Any]) -> Any:
    return ((extra_data.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")


def _outputs(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[int, dict[str, Any] | None]:
    """How many files there are, and the one to show: a saved one before a temporary one."""
    count, saved, other = 0, None, None
    for node, by_kind in outputs.items():
        for kind, items in by_kind.items():
            entries: Sequence[Any] = items if isinstance(items, list) and kind != "animated" else ()
            for item in entries:
                if not isinstance(item, dict):
                    continue
                count += 1
                if kind not in PREVIEWABLE:
                    continue
                found = {**item, "nodeId": node, "mediaType": kind}
                if item.get("type") == "output":
                    saved = saved or found
                else:
                    other = other or found
    return count, saved or other
