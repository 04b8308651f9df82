"""Refuses requests that name another host than the allowed ones, before anything reads them: a page that had its
own name lead here cannot ask for it, and no answer has a link to where a caller said.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from comfy_api_service.api.errors import error_answer
from comfy_api_service.api.host_names import HostNames
from comfy_api_service.api.sockets import deny
from comfy_api_service.domain.errors import Code, Refused

PROBED: Final = frozenset({"/ping", "/health/live", "/health/ready", "/metrics"})
"""What probes and scrapers ask by address."""


class AllowedHosts:
    def __init__(self, app: ASGIApp, names: HostNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBED or self._names.allow(scope):
            await self._app(scope, receive, send)
            return
        refusal = Refused(Code.BAD_REQUEST, "This service is not known by this host name; see ALLOWED_HOSTS.")
        if scope["type"] == "websocket":
            await deny(WebSocket(scope, receive, send), refusal)
        else:
            await error_answer(refusal, scope)(scope, receive, send)
