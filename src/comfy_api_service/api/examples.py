"""Examples for the documentation; a test holds each to its model."""

from typing import Any, Final

from comfy_api_service.api.schemas.base import EXAMPLE_BATCH, EXAMPLE_JOB, EXAMPLE_TIME

_URL: Final = f"http://127.0.0.1:8000/api/v1/jobs/{EXAMPLE_JOB}"
_LATER: Final = "2026-01-31T12:00:09.500Z"
REQUEST: Final[dict[str, Any]] = {
    "prompt": "a lighthouse at dawn, oil painting",
    "negative_prompt": "blurry",
    "width": 768,
    "height": 512,
    "steps": 25,
    "sampler": "dpm++_2m_karras",
    "seed": 42,
}
BATCH_REQUEST: Final[dict[str, Any]] = {
    "requests": [{"prompt": "a lighthouse at dawn"}, {"prompt": "the same at night", "steps": 30}]
}
PARAMS: Final[dict[str, Any]] = {
    "prompt": "a lighthouse at dawn, oil painting",
    "negative_prompt": "blurry",
    "width": 768,
    "height": 512,
    "steps": 25,
    "cfg_scale": 7.0,
    "sampler": "dpm++_2m_karras",
    "scheduler": None,
    "seed": 42,
    "model": "v1-5-pruned-emaonly.safetensors",
    "batch_size": 1,
    "clip_skip": None,
    "loras": [],
    "upscale": None,
}
SUBMITTED: Final[dict[str, Any]] = {
    "job_id": EXAMPLE_JOB,
    "status": "queued",
    "queued_at": EXAMPLE_TIME,
    "location": _URL,
    "status_url": _URL,
    "events_url": f"{_URL}/events",
    "websocket_url": f"ws://127.0.0.1:8000/ws/jobs/{EXAMPLE_JOB}",
    "queue_position": 3,
    "estimated_start_at": _LATER,
    "cost": {"pixel_steps": 9_830_400.0, "seconds": 4.2},
}
ARTIFACT: Final[dict[str, Any]] = {
    "url": f"http://127.0.0.1:8000/artifacts/jobs/{EXAMPLE_JOB}/1/image_0.png?expires=1770000000&type=image/png"
    "&name=image_0.png&signature=…",
    "url_expires_at": "2026-02-07T12:00:09.000Z",
    "index": 0,
    "node_id": "9",
    "kind": "image",
    "media_type": "image/png",
    "width": 768,
    "height": 512,
    "bytes": 481_230,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "seed": 42,
    "meta": {},
}
JOB: Final[dict[str, Any]] = {
    "job_id": EXAMPLE_JOB,
    "status": "succeeded",
    "canceling": False,
    "progress": 100.0,
    "current_step": None,
    "total_steps": None,
    "current_node": None,
    "preview_url": None,
    "queue_position": None,
    "estimated_start_at": None,
    "params": PARAMS,
    "labels": {},
    "priority": 0,
    "attempts": 1,
    "max_attempts": 3,
    "backend": "gpu-1",
    "batch_id": None,
    "queued_at": EXAMPLE_TIME,
    "started_at": "2026-01-31T12:00:01.000Z",
    "finished_at": _LATER,
    "deadline_at": None,
    "purged_at": None,
    "result": {
        "artifacts": [ARTIFACT],
        "values": {},
        "generation_time": 8.4,
        "queue_time": 1.0,
        "cache": "none",
    },
    "error": None,
}
GENERATION: Final[dict[str, Any]] = {
    "job_id": EXAMPLE_JOB,
    "status": "completed",
    "image_url": ARTIFACT["url"],
    "images": [ARTIFACT],
    "metadata": {
        **PARAMS,
        "generation_time": 8.4,
        "queue_time": 1.0,
        "backend": "gpu-1",
        "cache": "none",
    },
    "created_at": EXAMPLE_TIME,
    "completed_at": _LATER,
    "status_url": f"http://127.0.0.1:8000/api/v1/generate/{EXAMPLE_JOB}",
    "error": None,
}
BATCH: Final[dict[str, Any]] = {
    "batch_id": EXAMPLE_BATCH,
    "status_url": f"http://127.0.0.1:8000/api/v1/batches/{EXAMPLE_BATCH}",
    "created_at": EXAMPLE_TIME,
    "jobs": [{"index": 0, **GENERATION}],
    "total": 1,
    "completed": 1,
    "failed": 0,
}
