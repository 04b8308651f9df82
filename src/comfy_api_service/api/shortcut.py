"""The way of submissions and WebSockets past the framework's layers: those cost a submission more time than
all the rest of it, and a waiting WebSocket a quarter of its memory.

A submission is the same function as the route's, and a test holds both ways to the same answers; everything
else goes through the framework.
"""

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from comfy_api_service.api.errors import error_answer
from comfy_api_service.api.routes import jobs
from comfy_api_service.api.state import submitter
from comfy_api_service.domain.errors import ServiceError


class Shortcut:
    def __init__(self, app: ASGIApp, *, sockets: ASGIApp, jobs_enabled: bool) -> None:
        self._app = app
        self._sockets = sockets
        self._jobs_enabled = jobs_enabled
        self._route = next(
            route
            for route in jobs.router.routes
            if isinstance(route, APIRoute) and route.endpoint is jobs.submit_job
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
            return
        if scope["path"] != jobs.PATH or scope["method"] != "POST" or not self._jobs_enabled:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            request = Request(scope, receive)
            response = await jobs.submit_job(request, await submitter(request))
        except ServiceError as error:
            response = error_answer(error, scope)
        await response(scope, receive, send)
