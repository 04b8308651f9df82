"""Browsers of other origins: starlette's rules, with refusals in this API's envelope."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from comfy_api_service.api.errors import error_answer
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.domain.errors import Code, Refused

EXPOSED = (
    "X-Request-ID",
    "Location",
    "Retry-After",
    "Idempotent-Replayed",
    "Preference-Applied",
    "ETag",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit",
    "RateLimit-Policy",
)
SENT = ("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-API-Key", "X-Request-ID")
"""What pages may send unless CORS_HEADERS says otherwise."""


class Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, options: ApiOptions) -> None:
        super().__init__(
            app,
            allow_origins=options.cors_origins,
            allow_methods=options.cors_methods or ("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=options.cors_headers or SENT,
            allow_credentials=False,  # nothing here hangs on what a browser sends of its own accord
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                await self._preflight(scope, headers)(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _preflight(self, scope: Scope, headers: Headers) -> Response:
        response = self.preflight_response(request_headers=headers)
        if response.status_code < 400:
            return response
        return error_answer(Refused(Code.BAD_REQUEST, "This origin may not do this."), scope)
