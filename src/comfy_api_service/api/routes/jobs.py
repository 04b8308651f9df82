"""Jobs: submit, read, list, cancel, purge, retry."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import cursors, shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import (
    IDEMPOTENCY,
    LOCATION,
    OF_SUBMISSIONS,
    REPLAYED,
    answers,
    body_of,
    errors,
)
from comfy_api_service.api.examples import JOB, REQUEST, SUBMITTED
from comfy_api_service.api.filters import Filters
from comfy_api_service.api.orders import read_order
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, Flag, JobPath, Limit
from comfy_api_service.api.reading import idempotency_key
from comfy_api_service.api.schemas.jobs import JobAnswer, JobList
from comfy_api_service.api.schemas.submission import (
    GraphJobRequest,
    JobRequest,
    Submitted,
    TemplateJobRequest,
)
from comfy_api_service.api.state import Caller, Submitting, base_of, services_of
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.submission import Accepted

PATH: Final = "/api/v1/jobs"
router = APIRouter(tags=["jobs"], default_response_class=Response)


def submitted(request: Request, accepted: Accepted) -> Response:
    """202 for a new job, 200 for one that an earlier request made."""
    shape = shapes.submitted(accepted, base_of(request))
    request.scope["comfy_job_id"] = accepted.job_id
    headers = {"Location": shape["location"]}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return answer(shape, 200 if accepted.replayed or accepted.deduplicated else 202, headers)


@router.post(
    PATH,
    status_code=202,
    operation_id="submit_job",
    summary="Submit a job",
    responses={
        **answers(
            202, Submitted, "The job is on the disk.", example=SUBMITTED, headers={"Location": LOCATION}
        ),
        **answers(
            200,
            Submitted,
            "An earlier request made this job (Idempotency-Key, or `dedupe`).",
            example=SUBMITTED,
            headers={"Location": LOCATION, "Idempotent-Replayed": REPLAYED},
        ),
        **errors(*OF_SUBMISSIONS),
    },
    openapi_extra=body_of((JobRequest, GraphJobRequest, TemplateJobRequest), REQUEST, IDEMPOTENCY),
)
async def submit_job(request: Request, caller: Submitting) -> Response:
    order = await read_order(request)
    return submitted(request, await services_of(request).submitter.submit(caller, order))


@router.get(
    PATH,
    operation_id="list_jobs",
    summary="Own jobs, newest first",
    responses={
        **answers(200, JobList, "A page.", example={"jobs": [JOB], "next_cursor": None}),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_jobs(
    request: Request,
    caller: Caller,
    filters: Filters,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    page = await services_of(request).jobs.list(
        caller, filters=filters, cursor=cursors.decode(cursors.JOBS, cursor), limit=limit
    )
    base = base_of(request)
    return answer(
        {
            "jobs": [shapes.job(view, base) for view in page.items],
            "next_cursor": cursors.encode(cursors.JOBS, page.next_cursor),
        }
    )


@router.get(
    f"{PATH}/{{job_id}}",
    operation_id="get_job",
    summary="A job",
    responses={**answers(200, JobAnswer, "The job now.", example=JOB), **errors(Code.NOT_FOUND)},
)
async def get_job(request: Request, caller: Caller, job_id: JobPath) -> Response:
    view = await services_of(request).jobs.get(caller, job_id)
    return answer(shapes.job(view, base_of(request)))


@router.delete(
    f"{PATH}/{{job_id}}",
    operation_id="delete_job",
    summary="Cancel a job, or delete the results of a finished one",
    responses={
        **answers(200, JobAnswer, "The job now; `canceling` until its backend has stopped.", example=JOB),
        **errors(Code.NOT_FOUND, Code.CONFLICT, Code.VALIDATION_ERROR),
    },
)
async def delete_job(request: Request, caller: Caller, job_id: JobPath, purge: Flag = False) -> Response:
    jobs = services_of(request).jobs
    view = await (jobs.purge(caller, job_id) if purge else jobs.cancel(caller, job_id))
    return answer(shapes.job(view, base_of(request)))


@router.post(
    f"{PATH}/{{job_id}}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    responses={
        **answers(200, JobAnswer, "The job now; `canceling` until its backend has stopped.", example=JOB),
        **errors(Code.NOT_FOUND, Code.CONFLICT),
    },
)
async def cancel_job(request: Request, caller: Caller, job_id: JobPath) -> Response:
    view = await services_of(request).jobs.cancel(caller, job_id)
    return answer(shapes.job(view, base_of(request)))


@router.post(
    f"{PATH}/{{job_id}}/retry",
    status_code=202,
    operation_id="retry_job",
    summary="A new job from a finished one, with the same seed",
    responses={
        **answers(202, Submitted, "The new job.", example=SUBMITTED, headers={"Location": LOCATION}),
        **answers(
            200,
            Submitted,
            "An earlier request with this Idempotency-Key made this job.",
            example=SUBMITTED,
            headers={"Location": LOCATION, "Idempotent-Replayed": REPLAYED},
        ),
        **errors(Code.NOT_FOUND, Code.CONFLICT, *OF_SUBMISSIONS),
    },
    openapi_extra={"parameters": [IDEMPOTENCY]},
)
async def retry_job(request: Request, caller: Submitting, job_id: JobPath) -> Response:
    key = idempotency_key(request)
    return submitted(request, await services_of(request).submitter.retry(caller, job_id, idempotency_key=key))
