"""Submit and wait: one picture for one request. Also the same jobs in the shape of this operation."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import (
    APPLIED,
    IDEMPOTENCY,
    LOCATION,
    OF_SUBMISSIONS,
    PREFER,
    REPLAYED,
    answers,
    body_of,
    errors,
)
from comfy_api_service.api.examples import GENERATION, REQUEST
from comfy_api_service.api.orders import read_order
from comfy_api_service.api.outcomes import failure_of
from comfy_api_service.api.parameters import Flag, JobPath
from comfy_api_service.api.reading import preferred_wait
from comfy_api_service.api.routes.results import OF_RESULTS, picture
from comfy_api_service.api.schemas.generate import GenerationAnswer
from comfy_api_service.api.schemas.submission import GraphJobRequest, JobRequest, TemplateJobRequest
from comfy_api_service.api.state import Caller, Submitting, base_of, services_of
from comfy_api_service.api.waiting import Away, wait_for_caller
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.errors import TABLE, Code, Unavailable
from comfy_api_service.domain.job import TERMINAL
from comfy_api_service.domain.submission import Accepted
from comfy_api_service.services.views import JobView

PATH: Final = "/api/v1/generate"
OF_JOBS: Final = tuple(code for code, info in TABLE.items() if info.of_job)
RETRY_SECONDS: Final = 10.0
_HEADERS: Final = {"Location": LOCATION, "Idempotent-Replayed": REPLAYED, "Preference-Applied": APPLIED}
router = APIRouter(tags=["generate"], default_response_class=Response)


def require_backend(request: Request) -> None:
    """Who waits for a picture is told at once that nobody could make it now; nothing is queued."""
    if not services_of(request).health.any_backend:
        raise Unavailable(
            "No ComfyUI server can be reached now; a job would wait for one.",
            code=Code.BACKEND_UNAVAILABLE,
            retry_after=RETRY_SECONDS,
        )


@router.post(
    PATH,
    status_code=201,
    operation_id="generate",
    summary="Make pictures and wait for them",
    responses={
        **answers(201, GenerationAnswer, "The pictures.", example=GENERATION, headers=_HEADERS),
        **answers(
            202,
            GenerationAnswer,
            "Not ready in time; the job goes on.",
            example={
                **GENERATION,
                "status": "processing",
                "image_url": None,
                "images": [],
                "completed_at": None,
            },
            headers=_HEADERS,
        ),
        **errors(*OF_SUBMISSIONS, *OF_JOBS, Code.CONFLICT, Code.GONE, Code.BACKEND_UNAVAILABLE),
    },
    openapi_extra=body_of((JobRequest, GraphJobRequest, TemplateJobRequest), REQUEST, IDEMPOTENCY, PREFER),
)
async def generate(request: Request, caller: Submitting, cancel_on_disconnect: Flag = False) -> Response:
    """If the job fails, the answer is its error, with `job_id` in the details; 409 if it was canceled. A
    caller that leaves cancels the job only with `cancel_on_disconnect=true`.
    """
    order = await read_order(request)
    require_backend(request)
    accepted = await services_of(request).submitter.submit(caller, order)
    request.scope["comfy_job_id"] = accepted.job_id
    view = await _wait(request, caller, accepted.job_id, cancel_on_disconnect=cancel_on_disconnect)
    if (error := failure_of(view)) is not None:
        raise error
    return _answer(request, accepted, view)


async def _wait(request: Request, caller: Account, job_id: str, *, cancel_on_disconnect: bool) -> JobView:
    services = services_of(request)
    seconds, _ = preferred_wait(request)
    found = await wait_for_caller(request, services.watcher.wait(caller, job_id, timeout=seconds))
    if isinstance(found, JobView):
        return found
    view = await services.jobs.get(caller, job_id)
    if found is Away.LEFT and cancel_on_disconnect and view.job.state not in TERMINAL:
        return await services.jobs.cancel(caller, job_id)
    return view


def _answer(request: Request, accepted: Accepted, view: JobView) -> Response:
    shape = shapes.generation(view, base_of(request))
    headers = {"Location": shape["status_url"]}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    seconds, chosen = preferred_wait(request)
    if chosen:
        headers["Preference-Applied"] = f"wait={seconds:.0f}"
    return answer(shape, 201 if view.job.state in TERMINAL else 202, headers)


@router.get(
    f"{PATH}/{{job_id}}",
    operation_id="get_generation",
    summary="A job in the shape of `generate`",
    responses={
        **answers(200, GenerationAnswer, "The job now.", example=GENERATION),
        **errors(Code.NOT_FOUND),
    },
)
async def get_generation(request: Request, caller: Caller, job_id: JobPath) -> Response:
    view = await services_of(request).jobs.get(caller, job_id)
    return answer(shapes.generation(view, base_of(request)))


router.add_api_route(
    f"{PATH}/{{job_id}}/image",
    picture,
    methods=["GET"],
    operation_id="get_generation_image",
    summary="A picture of the job, the first if no other is asked for",
    responses=OF_RESULTS,
)
