"""Results as bytes: of a job, in other formats and sizes, and behind signed links."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from comfy_api_service.api.addresses import absolute
from comfy_api_service.api.delivery import deliver
from comfy_api_service.api.documented import Responses, empty, errors, gives
from comfy_api_service.api.negotiation import accepted_types
from comfy_api_service.api.parameters import Flag, Index, JobPath, Thumbnail
from comfy_api_service.api.schemas.errors import ErrorAnswer
from comfy_api_service.api.state import Caller, base_of, services_of
from comfy_api_service.domain.errors import Code, NotFound

_FILE: Final[Responses] = {
    **gives(200, ("image/*", "*/*"), "The file."),
    **gives(206, ("image/*", "*/*"), "The part of it that `Range` asked for."),
    **empty(304, "The caller has it already (`If-None-Match`)."),
    416: {"model": ErrorAnswer, "description": "The range lies outside of the file."},
}
OF_RESULTS: Final[Responses] = {
    **_FILE,
    **empty(307, "To the storage.", {"Location": {"schema": {"type": "string"}}}),
    **errors(Code.NOT_FOUND, Code.NOT_ACCEPTABLE, Code.CONFLICT, Code.GONE, Code.VALIDATION_ERROR),
}
router = APIRouter(tags=["jobs"], default_response_class=Response)
links = APIRouter(tags=["artifacts"], default_response_class=Response)


async def picture(
    request: Request,
    caller: Caller,
    job_id: JobPath,
    index: Index = 0,
    size: Thumbnail = None,
    redirect: Flag = False,
) -> Response:
    """`Accept` may ask for image/png, image/jpeg or image/webp; `Range` and `If-None-Match` are understood."""
    results = services_of(request).results
    if redirect:
        link = await results.link(caller, job_id, index=index)
        return RedirectResponse(absolute(base_of(request), link.url), 307)
    found = await results.picture(
        caller, job_id, index=index, size=size, accept=accepted_types(request.headers.getlist("accept"))
    )
    return await deliver(request, found, {"Vary": "Accept"})


for _name in ("result", "image"):
    router.add_api_route(
        f"/api/v1/jobs/{{job_id}}/{_name}",
        picture,
        methods=["GET"],
        operation_id=f"get_job_{_name}",
        summary="A file of the result, the first if no other is asked for",
        responses=OF_RESULTS,
    )


@links.get(
    "/artifacts/{key:path}",
    operation_id="get_artifact",
    summary="A file, by a signed link",
    responses={
        **_FILE,
        **errors(Code.FORBIDDEN, Code.NOT_FOUND, Code.GONE, Code.VALIDATION_ERROR, open_to_all=True),
    },
)
async def artifact(
    request: Request,
    key: str,
    expires: Annotated[str, Query(max_length=20)] = "",
    type: Annotated[str, Query(max_length=255)] = "",  # noqa: A002 - the link's own word
    name: Annotated[str, Query(max_length=255)] = "",
    signature: Annotated[str, Query(max_length=255)] = "",
) -> Response:
    if "\x00" in key:
        raise NotFound("artifact")
    query = {"expires": expires, "type": type, "name": name, "signature": signature}
    return await deliver(request, await services_of(request).results.by_link(key, query))
