"""The pool's ComfyUI servers, by operators, while the service runs. All of this also answers below `/api/v1`."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import overview
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import OF_BODIES, answers, body_of, empty, errors
from comfy_api_service.api.reading import parse, read_json
from comfy_api_service.api.schemas.admin import BackendAnswer, BackendChange, BackendList, BackendRequest
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.state import Administrator, actor_of, services_of
from comfy_api_service.domain.errors import Code

PATH: Final = "/admin/backends"
_EXAMPLE: Final[dict[str, Any]] = {
    "name": "comfyui-2",
    "url": "http://gpu3:8188",
    "state": "online",
    "draining": False,
    "driven": True,
    "version": "0.8.0",
    "resident_model": "checkpoints/v1-5-pruned-emaonly.safetensors",
    "seen_at": EXAMPLE_TIME,
    "manual": True,
}
router = APIRouter(tags=["admin"], default_response_class=Response)


@router.get(
    PATH,
    operation_id="admin_list_backends",
    summary="The ComfyUI servers, and how they are",
    responses={
        **answers(200, BackendList, "All of them.", example={"backends": [_EXAMPLE]}),
        **errors(),
    },
)
async def list_backends(request: Request, _caller: Administrator) -> Response:
    listed, driven = await services_of(request).backends.all()
    return answer({"backends": [overview.backend(one, driven=one.id in driven) for one in listed]})


@router.post(
    PATH,
    status_code=201,
    operation_id="admin_add_backend",
    summary="Put a ComfyUI server on the list",
    responses={
        **answers(201, BackendAnswer, "It is on the list.", example=_EXAMPLE),
        **errors(*OF_BODIES),
    },
    openapi_extra=body_of(BackendRequest, {"url": "http://gpu3:8188"}),
)
async def add_backend(request: Request, caller: Administrator) -> Response:
    """A worker that can reach it takes it within a second or two. One that is on the list already stays as it is."""
    given = parse(BackendRequest, await read_json(request))
    backends = services_of(request).backends
    added = await backends.add(given.url, actor_of(request, caller))
    found, driven = await backends.one(added.name)
    return answer(overview.backend(found, driven=driven), 201)


@router.patch(
    f"{PATH}/{{name}}",
    operation_id="admin_change_backend",
    summary="Drain a ComfyUI server, or give it work again",
    responses={
        **answers(200, BackendAnswer, "The server now.", example=_EXAMPLE),
        **errors(*OF_BODIES, Code.NOT_FOUND),
    },
    openapi_extra=body_of(BackendChange, {"draining": True}),
)
async def change_backend(request: Request, caller: Administrator, name: str) -> Response:
    given = parse(BackendChange, await read_json(request))
    backends = services_of(request).backends
    await backends.set_draining(name, given.draining, actor_of(request, caller))
    found, driven = await backends.one(name)
    return answer(overview.backend(found, driven=driven))


@router.delete(
    f"{PATH}/{{name}}",
    status_code=204,
    operation_id="admin_remove_backend",
    summary="Take a ComfyUI server off the list",
    responses={
        **empty(204, "What it has may end, then its worker lets go of it."),
        **errors(Code.NOT_FOUND),
    },
)
async def remove_backend(request: Request, caller: Administrator, name: str) -> Response:
    """A worker whose settings name it puts it back when it starts again."""
    await services_of(request).backends.remove(name, actor_of(request, caller))
    return Response(status_code=204)
