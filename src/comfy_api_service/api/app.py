"""The ASGI application: routes inside, the gate around them. Nothing is built at import but the routes' table."""

from collections.abc import Callable, Iterator
from typing import Final

import orjson
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from comfy_api_service.api.client_address import client_address, scheme_of
from comfy_api_service.api.cors import Cors
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.errors import handle_error, handle_validation
from comfy_api_service.api.gate import Gate
from comfy_api_service.api.hosts import AllowedHosts
from comfy_api_service.api.measures import Measures
from comfy_api_service.api.multipart import OVERHEAD
from comfy_api_service.api.openapi import document
from comfy_api_service.api.options import ApiOptions, jobs_switched_off
from comfy_api_service.api.routes import (
    admin_backends,
    admin_overview,
    admin_users,
    auth,
    batches,
    docs,
    generate,
    jobs,
    models,
    results,
    service,
    streams,
    uploads,
    usage,
    webhooks,
    workflows,
)
from comfy_api_service.api.services import ApiServices
from comfy_api_service.api.shortcut import Shortcut
from comfy_api_service.api.sockets import Sockets
from comfy_api_service.api.state import AppState
from comfy_api_service.domain.errors import ServiceError

JOBS: Final = (jobs.router, results.router, streams.router)
"""What JOBS_ENABLED switches."""
OTHERS: Final = (
    batches.router,  # before `generate`, whose `{job_id}` would take the word `batch`
    generate.router,
    workflows.router,
    models.router,
    uploads.router,
    auth.router,
    usage.router,
    webhooks.router,
    admin_users.router,
    admin_backends.router,
    admin_overview.router,
    results.links,
    service.router,
    docs.router,
)


class Api:
    """What `build_app` gives: call it with ASGI; `drain` it before the server closes its connections."""

    def __init__(self, gate: ASGIApp, fastapi: FastAPI, state: AppState) -> None:
        self._gate = gate
        self._state = state
        self.fastapi = fastapi
        """For `openapi.document`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trusted = self._state.options.trusted
        scope["comfy_state"] = self._state
        scope["comfy_client"] = client_address(scope, trusted)
        scope["comfy_scheme"] = scheme_of(scope, trusted)
        await self._gate(scope, receive, send)

    def drain(self) -> None:
        """End streams and sockets with a reason, answer whoever waits; readiness says no from now on."""
        self._state.draining.begin()


def build_app(services: ApiServices, options: ApiOptions, *, make_gate: Callable[..., Gate] = Gate) -> Api:
    app = _routed(options)
    sockets = Sockets(enabled=options.jobs_enabled)
    inner: ASGIApp = Shortcut(app, sockets=sockets, jobs_enabled=options.jobs_enabled)
    if options.cors_origins:
        inner = Cors(inner, options)
    if options.allowed_hosts:
        inner = AllowedHosts(inner, options.allowed_hosts)
    measures = Measures(services.metrics, _series())
    return Api(
        make_gate(
            inner,
            measures=measures,
            max_body_size=options.max_body_size,
            larger={uploads.PATH: options.max_upload_size + OVERHEAD},
            hsts_max_age=options.hsts_max_age,
        ),
        app,
        AppState(services, options, Draining()),
    )


def openapi_text(version: str) -> str:
    """The OpenAPI document without a running service, as it is committed: indented, with a last newline."""
    described = document(_routed(ApiOptions(version)))
    return orjson.dumps(described, option=orjson.OPT_INDENT_2).decode() + "\n"


def _routed(options: ApiOptions) -> FastAPI:
    app = FastAPI(
        title="comfy-api-service",
        version=options.version,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # The framework's own would tell paths, queries and messages of exceptions; ours is `api/traced.py`.
        telemetry=TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False),
    )
    app.router.redirect_slashes = False
    for router in JOBS:
        if options.jobs_enabled:
            app.router.routes.extend(router.routes)
        else:
            app.include_router(router, dependencies=[Depends(_switched_off)])
    for router in OTHERS:  # as they are: `include_router` makes each anew, 0.1 s at the first request
        app.router.routes.extend(router.routes)
    _tell_errors(app)
    return app


def _tell_errors(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, handle_error)
    app.add_exception_handler(RequestValidationError, handle_validation)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, handle_error)


async def _switched_off() -> None:
    raise jobs_switched_off()


async def _http_exception(request: Request, error: Exception) -> Response:
    """The framework's own; a wrong method is told all the right ones, not just those of one route."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, headers={"Allow": ", ".join(allowed(request.scope["path"]))})
    return await handle_error(request, error)


def allowed(path: str) -> list[str]:
    """The methods that this path has; a path that stands there as it is goes before one with a parameter."""
    routes = [route for route in api_routes() if route.endpoint is not batches.not_allowed]
    exact = [route for route in routes if route.path == path]
    found = exact or [route for route in routes if route.path_regex.match(path)]
    methods = {method for route in found for method in route.methods or ()}
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
