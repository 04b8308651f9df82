"""What the service says of itself: name, life, health, figures."""

import hmac
from typing import Final

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import answers, errors, gives
from comfy_api_service.api.parameters import Flag
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.schemas.service import (
    HealthAnswer,
    LiveAnswer,
    PingAnswer,
    ReadyAnswer,
    RootAnswer,
)
from comfy_api_service.api.state import base_of, services_of, state_of
from comfy_api_service.domain.errors import Code, Refused, Unavailable
from comfy_api_service.domain.times import iso

NAME: Final = "comfy-api-service"
LINKS: Final = {
    "documentation": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "models": "/api/v1/models",
    "jobs": "/api/v1/jobs",
    "generate": "/api/v1/generate",
}
router = APIRouter(tags=["service"], default_response_class=Response)


@router.get(
    "/",
    operation_id="get_root",
    summary="Name, version and links",
    responses={
        **answers(
            200, RootAnswer, "The service.", example={"name": NAME, "version": "0.1.0", "links": LINKS}
        ),
        **errors(open_to_all=True),
    },
)
async def root(request: Request) -> Response:
    base = base_of(request)
    links = {name: base + path for name, path in LINKS.items()}
    return answer({"name": NAME, "version": state_of(request).options.version, "links": links})


@router.get(
    "/ping",
    operation_id="ping",
    summary="Answers at once",
    responses={**answers(200, PingAnswer, "It answers.", example={"ok": True}), **errors(open_to_all=True)},
)
async def ping() -> Response:
    return answer({"ok": True})


_HEALTH: Final = {
    "status": "healthy",
    "api_version": "0.1.0",
    "comfyui_status": "connected",
    "redis_status": "embedded",
    "database_status": "embedded",
    "storage_status": "embedded",
    "minio_status": "embedded",
    "timestamp": EXAMPLE_TIME,
}


@router.get(
    "/health",
    operation_id="get_health",
    summary="State of the service and its parts",
    responses={
        **answers(200, HealthAnswer, "Healthy or degraded.", example=_HEALTH),
        **errors(open_to_all=True),
    },
)
async def health(request: Request) -> Response:
    report = await services_of(request).health.report()
    return answer(
        {
            "status": "healthy" if report.healthy else "degraded",
            "api_version": state_of(request).options.version,
            "comfyui_status": report.comfyui,
            "redis_status": report.redis,
            "database_status": report.database,
            "storage_status": report.storage,
            "minio_status": report.storage,
            "timestamp": iso(report.at),
        }
    )


@router.get(
    "/health/live",
    operation_id="get_liveness",
    summary="Probe: the process answers",
    responses={**answers(200, LiveAnswer, "It lives.", example={"alive": True}), **errors(open_to_all=True)},
)
async def live() -> Response:
    return answer({"alive": True})


@router.get(
    "/health/ready",
    operation_id="get_readiness",
    summary="Probe: it can take work",
    responses={
        **answers(200, ReadyAnswer, "It can.", example={"ready": True}),
        **errors(Code.VALIDATION_ERROR, open_to_all=True),
    },
)
async def ready(request: Request, local: Flag = False) -> Response:
    """With `local=true` it is asked of this process alone: whether it is stopping. Behind a balancer a process
    is then not taken out for what all of them miss, and callers are told what it is.
    """
    state = state_of(request)
    if state.draining.begun:
        reasons: tuple[str, ...] = ("The service is stopping.",)
    else:
        reasons = () if local else await state.services.health.ready()
    if reasons:
        not_ready = Unavailable(" ".join(reasons))
        not_ready.details = {"reasons": list(reasons)}
        raise not_ready
    return answer({"ready": True})


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Figures for Prometheus",
    responses={
        **gives(200, ("text/plain",), "Prometheus text."),
        **errors(Code.UNAUTHORIZED, open_to_all=True),
    },
)
async def metrics(request: Request) -> Response:
    token = state_of(request).options.metrics_token
    if token is not None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(Code.UNAUTHORIZED, "The figures need their token.")
    text = generate_latest(services_of(request).metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
