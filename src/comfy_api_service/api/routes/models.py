"""The models that the backends have."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from comfy_api_service.api import cursors, shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import answers, errors
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, Limit
from comfy_api_service.api.schemas.models import ModelList
from comfy_api_service.api.state import Caller, services_of
from comfy_api_service.domain.errors import Code

_EXAMPLE: Final = {
    "models": [{"kind": "checkpoints", "name": "sd_xl_base_1.0.safetensors", "backends": ["gpu-1"]}],
    "next_cursor": None,
}
_RESPONSES: Final = {
    **answers(200, ModelList, "Sorted by kind and name.", example=_EXAMPLE),
    **errors(Code.VALIDATION_ERROR),
}
router = APIRouter(tags=["models"], default_response_class=Response)


@router.get(
    "/api/v1/models", operation_id="list_models", summary="Models of all backends", responses=_RESPONSES
)
@router.get(
    "/models", operation_id="list_models_short", summary="Models of all backends", responses=_RESPONSES
)
async def list_models(
    request: Request,
    caller: Caller,
    kind: Annotated[str | None, Query(max_length=100, description="Such as `checkpoints`.")] = None,
    name: Annotated[str | None, Query(max_length=255, description="A part of the name, in any case.")] = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    del caller  # everybody who may call sees the same models
    page = services_of(request).models.list(
        kind=kind, name=name, cursor=cursors.decode(cursors.MODELS, cursor), limit=limit
    )
    return answer(
        {
            "models": [shapes.model(entry) for entry in page.items],
            "next_cursor": cursors.encode(cursors.MODELS, page.next_cursor),
        }
    )
