"""What happens to a job while it happens: the stream of its events, and the latest preview."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from comfy_api_service.api.documented import empty, errors, gives
from comfy_api_service.api.listening import close
from comfy_api_service.api.parameters import Flag, JobPath, LastId
from comfy_api_service.api.sse import EventStream, after_first, has_ended
from comfy_api_service.api.state import Caller, Listening, base_of, services_of, state_of
from comfy_api_service.domain.errors import Code, NotFound

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
    caller: Listening,
    job_id: JobPath,
    previews: Flag = True,
    last_event_id: Annotated[LastId, Query()] = None,
    last_event_id_header: Annotated[LastId, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """A `snapshot` first, then every durable event (`queued`, `running`, `requeued`, `artifact`) with its
    `seq` as id, `progress` (at most 10 a second) and `preview` (at most 4 a second, in base64) in between,
    and `done` at the end, after which the stream closes. A comment every 15 seconds shows that it lives.
    With `Last-Event-ID` (or `last_event_id`) every durable event since that one is told first.
    """
    after = last_event_id if last_event_id_header is None else last_event_id_header
    notices = services_of(request).watcher.job(caller.account, job_id, after=after, previews=previews)
    first = await anext(notices)
    if has_ended(first, after):
        await close(notices)
        return Response(status_code=204)
    return EventStream(
        after_first(first, notices),
        base_of(request),
        state_of(request).draining,
        revoked=lambda gone: services_of(request).access.watch(caller, gone),
    )


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
