"""What happens to a job while it happens: the stream of its events, and the latest preview."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from pydantic import BeforeValidator
from starlette.responses import Response

from comfy_api_service.api.addresses import base_of
from comfy_api_service.api.documented import empty, errors, gives
from comfy_api_service.api.listening import close
from comfy_api_service.api.parameters import Flag, JobPath
from comfy_api_service.api.reading import whole_number
from comfy_api_service.api.sse import EventStream, after_first, has_ended
from comfy_api_service.api.state import Caller, services_of, state_of
from comfy_api_service.domain.errors import Code, NotFound

LAST_ID_MAX: Final = 2**31 - 1
_Seq = Annotated[int | None, BeforeValidator(whole_number)]
router = APIRouter(tags=["events"], default_response_class=Response)


@router.get(
    "/api/v1/jobs/{job_id}/events",
    operation_id="stream_events",
    summary="Events of a job, until its end",
    responses={
        **gives(200, ("text/event-stream",), "Server-Sent Events; each `data` is an event as a JSON object."),
        **empty(204, "The job has ended, and the caller's last id says that it knows."),
        **errors(Code.NOT_FOUND, Code.VALIDATION_ERROR),
    },
)
async def stream_events(
    request: Request,
    caller: Caller,
    job_id: JobPath,
    previews: Flag = True,
    last_event_id: Annotated[_Seq, Query(ge=0, le=LAST_ID_MAX)] = None,
    last_event_id_header: Annotated[_Seq, Header(alias="Last-Event-ID", ge=0, le=LAST_ID_MAX)] = None,
) -> Response:
    """A `snapshot` first, then every durable event (`queued`, `running`, `requeued`, `artifact`) with its
    `seq` as id, `progress` (at most 10 a second) and `preview` (at most 4 a second, in base64) in between,
    and `done` at the end, after which the stream closes. A comment every 15 seconds shows that it lives.
    With `Last-Event-ID` (or `last_event_id`) every durable event since that one is told first.
    """
    after = last_event_id if last_event_id_header is None else last_event_id_header
    notices = services_of(request).watcher.job(caller, job_id, after=after, previews=previews)
    first = await anext(notices)
    if has_ended(first, after):
        await close(notices)
        return Response(status_code=204)
    return EventStream(after_first(first, notices), base_of(request), state_of(request).draining)


@router.get(
    "/api/v1/jobs/{job_id}/preview",
    operation_id="get_preview",
    summary="The latest preview picture of a running job",
    responses={
        **gives(200, ("image/jpeg", "image/png", "image/webp"), "The picture."),
        **errors(Code.NOT_FOUND),
    },
)
async def get_preview(request: Request, caller: Caller, job_id: JobPath) -> Response:
    preview = await services_of(request).watcher.preview(caller, job_id)
    if preview is None:
        raise NotFound("preview")
    return Response(preview.picture, headers={"Content-Type": preview.media_type})
