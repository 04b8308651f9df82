"""Whole graphs through the engine, past the API: what a caller's own workflow will do."""

import hashlib
import time
from typing import Any

from tests.support.rows import put

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.graph import Graph, canonical, pictures_in, requirement_of
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_job_id
from comfy_api_service.domain.submission import JobOptions, NewJob
from comfy_api_service.domain.upload import JobInput


def flat_picture(
    output: str = "PreviewImage", *, color: int = 0, size: int = 64, **inputs: Any
) -> dict[str, Any]:
    """A graph that needs no model: one colour, into an output node."""
    picture = {"width": size, "height": size, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": picture},
        "2": {"class_type": output, "inputs": {"images": ["1", 0], **inputs}},
    }


def loaded_picture(*, output: str = "SaveImage") -> dict[str, Any]:
    """A picture of the caller's, as it is, into an output node."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "upl_"}},
        "2": {"class_type": output, "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


async def submit_graph(
    service: Service, graph: Graph, *, inputs: tuple[JobInput, ...] = (), **options: Any
) -> str:
    """The id of a job with this graph, queued."""
    content = canonical(graph)
    job = NewJob(
        id=new_job_id(),
        account_id=LOCAL_ACCOUNT,
        requirement=requirement_of(graph),
        graph=graph,
        params={},
        options=JobOptions(**options),
        images=pictures_in(graph),
        cost=1.0,
        timing_key="by hand",
        queued_at=time.time(),
        fingerprint=hashlib.sha256(content).hexdigest()[:32],
        inputs=inputs,
    )
    await put(service.db, job)
    return job.id
