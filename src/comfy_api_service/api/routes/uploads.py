"""Uploads: pictures that jobs take as inputs."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import answers, empty, errors
from comfy_api_service.api.multipart import FilePart
from comfy_api_service.api.parameters import UploadPath
from comfy_api_service.api.schemas.uploads import EXAMPLE, UploadAnswer
from comfy_api_service.api.state import Caller, Uploading, services_of
from comfy_api_service.domain.errors import Code

PATH: Final = "/api/v1/upload"
FIELDS: Final = ("file", "image")
_FILE: Final = {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP picture."}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _FILE},
                    "required": ["file"],
                    "additionalProperties": False,
                },
                "example": {"file": "photo.jpg"},
            }
        },
    }
}
router = APIRouter(tags=["uploads"], default_response_class=Response)


@router.post(
    PATH,
    status_code=201,
    operation_id="upload",
    summary="Upload a picture",
    description="PNG, JPEG or WebP, told by its content, of one frame. It is kept without its metadata; the same "
    "content again gives the same upload, kept anew. The field may be named `image` as well.",
    responses={
        **answers(201, UploadAnswer, "The picture is kept until `expires_at`.", example=EXAMPLE),
        **errors(
            Code.PAYLOAD_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.INVALID_INPUT, Code.VALIDATION_ERROR
        ),
    },
    openapi_extra=_BODY,
)
async def upload(request: Request, caller: Uploading) -> Response:
    return answer(
        shapes.upload(await services_of(request).uploads.add(caller, FilePart(request, FIELDS))), 201
    )


@router.get(
    "/api/v1/uploads/{upload_id}",
    operation_id="get_upload",
    summary="An upload",
    responses={**answers(200, UploadAnswer, "What is kept.", example=EXAMPLE), **errors(Code.NOT_FOUND)},
)
async def get_upload(request: Request, caller: Caller, upload_id: UploadPath) -> Response:
    return answer(shapes.upload(await services_of(request).uploads.get(caller, upload_id)))


@router.delete(
    "/api/v1/uploads/{upload_id}",
    status_code=204,
    operation_id="delete_upload",
    summary="Delete an upload",
    responses={
        **empty(204, "It is deleted."),
        **errors(Code.NOT_FOUND, Code.CONFLICT),
    },
)
async def delete_upload(request: Request, caller: Caller, upload_id: UploadPath) -> Response:
    await services_of(request).uploads.delete(caller, upload_id)
    return Response(status_code=204)
