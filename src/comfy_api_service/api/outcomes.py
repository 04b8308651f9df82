"""A job's end as an answer to the request that waited for it."""

from comfy_api_service.domain.errors import Code, Conflict, Refused, ServiceError
from comfy_api_service.domain.job import State
from comfy_api_service.services.views import JobView


def failure_of(view: JobView) -> ServiceError | None:
    """Why a job has no result to give, its id in the details; None for one that has, or may yet have."""
    job = view.job
    if job.state is State.CANCELED:
        return Conflict("The job was canceled.", job_id=job.id, status=job.status)
    if job.state is State.SUCCEEDED and job.purged_at is not None:
        return Refused(Code.GONE, "The result was deleted.", details={"job_id": job.id})
    if job.state is not State.FAILED:
        return None
    error = job.error
    if error is None:
        return ServiceError(Code.INTERNAL_ERROR, "The job failed.", details={"job_id": job.id})
    details = {**error.details, "job_id": job.id}
    if error.node_id is not None:
        details["node_id"] = error.node_id
    return ServiceError(error.code, error.message, details=details)
