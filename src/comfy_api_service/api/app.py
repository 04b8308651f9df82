"""The ASGI application: routes inside, the gate around them. Nothing is built at import but the routes' table."""

from collections.abc import Iterator
from typing import Final

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from comfy_api_service.api.cors import Cors
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.errors import handle_error, handle_validation
from comfy_api_service.api.gate import Gate
from comfy_api_service.api.measures import Measures
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.routes import (
    batches,
    docs,
    generate,
    jobs,
    models,
    results,
    service,
    sockets,
    streams,
)
from comfy_api_service.api.services import ApiServices
from comfy_api_service.api.state import AppState
from comfy_api_service.domain.errors import ServiceError, Unavailable

JOBS: Final = (jobs.router, results.router, streams.router, sockets.router)
"""What JOBS_ENABLED switches."""
OTHERS: Final = (
    batches.router,  # before `generate`, whose `{job_id}` would take the word `batch`
    generate.router,
    models.router,
    results.links,
    service.router,
    docs.router,
)


class Api:
    """What `build_app` gives: call it with ASGI; `drain` it before the server closes its connections."""

    def __init__(self, gate: ASGIApp, fastapi: FastAPI, draining: Draining) -> None:
        self._gate = gate
        self._draining = draining
        self.fastapi = fastapi
        """For `openapi.document`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate(scope, receive, send)

    def drain(self) -> None:
        """End streams and sockets with a reason, answer whoever waits; readiness says no from now on."""
        self._draining.begin()


def build_app(services: ApiServices, options: ApiOptions) -> Api:
    draining = Draining()
    app = FastAPI(
        title="comfy-api-service", version=options.version, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.router.redirect_slashes = False
    app.state.comfy_api = AppState(services, options, draining)
    for router in JOBS:
        app.include_router(router, dependencies=[] if options.jobs_enabled else [Depends(_switched_off)])
    for router in OTHERS:
        app.include_router(router)
    _tell_errors(app)
    inner: ASGIApp = Cors(app, options) if options.cors_origins else app
    measures = Measures(services.metrics, _series())
    return Api(Gate(inner, measures=measures, max_body_size=options.max_body_size), app, draining)


def _tell_errors(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, handle_error)
    app.add_exception_handler(RequestValidationError, handle_validation)
    app.add_exception_handler(WebSocketRequestValidationError, handle_validation)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, handle_error)


async def _switched_off() -> None:
    raise Unavailable(
        "Jobs are switched off here (JOBS_ENABLED); POST /api/v1/generate works.", retry_after=3600
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    """The framework's own; a wrong method is told all the right ones, not just those of one route."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, headers={"Allow": ", ".join(allowed(request.scope["path"]))})
    return await handle_error(request, error)


def allowed(path: str) -> list[str]:
    """The methods that this path has."""
    methods: set[str] = set()
    for route in api_routes():
        if route.endpoint is not batches.not_allowed and route.path_regex.match(path):
            methods |= route.methods or set()
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def api_routes() -> Iterator[APIRoute]:
    for router in (*JOBS, *OTHERS):
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield route


def _series() -> Iterator[tuple[str, str, list[int]]]:
    """Every series that the routes' answers may count in."""
    for route in api_routes():
        statuses = {int(status) for status in route.responses} | {route.status_code or 200}
        for method in route.methods or ():
            yield method, route.path, sorted(statuses)
