"""The documentation: the OpenAPI document, and two pages that show it.

Their scripts come with the package: no page asks another host for anything, with or without internet.
"""

import functools
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import Response

from comfy_api_service.api.answers import JSON
from comfy_api_service.api.openapi import document_bytes
from comfy_api_service.domain.errors import NotFound

_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)
"""Also stops what the scripts would fetch by themselves, such as the logo of Redoc's makers."""
TITLE: Final = "comfy-api-service"
ASSETS: Final = {
    "favicon.png": "image/png",
    "redoc.standalone.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return Response(document_bytes(request.app), media_type=JSON, headers={"Cache-Control": "no-cache"})


@router.get("/docs")
async def swagger(request: Request) -> Response:
    return _page(
        get_swagger_ui_html(
            openapi_url=_under_root(request, "openapi.json"),
            title=TITLE,
            swagger_js_url=_under_root(request, "docs/assets/swagger-ui-bundle.js"),
            swagger_css_url=_under_root(request, "docs/assets/swagger-ui.css"),
            swagger_favicon_url=_under_root(request, "docs/assets/favicon.png"),
        )
    )


@router.get("/redoc")
async def redoc(request: Request) -> Response:
    return _page(
        get_redoc_html(
            openapi_url=_under_root(request, "openapi.json"),
            title=TITLE,
            redoc_js_url=_under_root(request, "docs/assets/redoc.standalone.js"),
            redoc_favicon_url=_under_root(request, "docs/assets/favicon.png"),
            with_google_fonts=False,
        )
    )


@router.get("/docs/assets/{name}")
async def asset(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound("path")
    return Response(_bytes(name), media_type=ASSETS[name], headers={"Cache-Control": "max-age=86400"})


@functools.cache
def _bytes(name: str) -> bytes:
    return (resources.files("fastapi_offline") / "static" / name).read_bytes()


def _under_root(request: Request, path: str) -> str:
    return f"{request.scope.get('root_path', '')}/{path}"


def _page(page: Response) -> Response:
    page.headers["Content-Security-Policy"] = _POLICY
    page.headers["Cache-Control"] = "no-cache"
    return page
