"""The documentation: the OpenAPI document, and two pages that show it."""

from typing import Final

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import Response

from comfy_api_service.api.answers import JSON
from comfy_api_service.api.openapi import document_bytes

_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; "
    "worker-src blob:; frame-ancestors 'none'"
)
TITLE: Final = "comfy-api-service"
router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return Response(document_bytes(request.app), media_type=JSON, headers={"Cache-Control": "no-cache"})


@router.get("/docs")
async def swagger(request: Request) -> Response:
    return _page(get_swagger_ui_html(openapi_url=_document_path(request), title=TITLE))


@router.get("/redoc")
async def redoc(request: Request) -> Response:
    return _page(get_redoc_html(openapi_url=_document_path(request), title=TITLE))


def _document_path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/openapi.json"


def _page(page: Response) -> Response:
    page.headers["Content-Security-Policy"] = _POLICY
    page.headers["Cache-Control"] = "no-cache"
    return page
