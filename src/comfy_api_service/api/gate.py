"""The outermost layer, one plain ASGI class for all that every request needs: request id, size limit,
security headers, HEAD, trailing slash, metrics, access log, and an envelope for what nobody caught.
"""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfy_api_service.api.errors import error_answer, internal_error, too_large
from comfy_api_service.api.linger import linger
from comfy_api_service.api.measures import Measures
from comfy_api_service.domain.ids import JOB_ID, new_request_id
from comfy_api_service.telemetry.context import REQUEST_ID
from comfy_api_service.telemetry.logs import request_lines

_SANE: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
API_ONLY: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""For answers that say nothing of their own about it."""
BEFORE_ADMIN: Final = "/api/v1"
ADMIN: Final = f"{BEFORE_ADMIN}/admin/"
QUIET: Final = frozenset({"/", "/ping", "/health", "/health/live", "/health/ready", "/metrics"})
"""Paths that are asked all the time: logged at debug."""
log = structlog.get_logger()


class Gate:
    def __init__(
        self,
        app: ASGIApp,
        *,
        measures: Measures,
        max_body_size: int,
        larger: Mapping[str, int] | None = None,
        hsts_max_age: int = 0,
    ) -> None:
        """`larger`: limits of bodies of their own, by path. `hsts_max_age`: seconds of
        `Strict-Transport-Security`; 0: it is not sent.
        """
        self._app = app
        self._measures = measures
        self._limit = max_body_size
        self._larger = larger or {}
        hsts = (b"strict-transport-security", f"max-age={hsts_max_age}".encode())
        self._over_tls = (*SECURITY, hsts) if hsts_max_age else SECURITY
        self._tell = request_lines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope = _canonical(scope)
        security = self._over_tls if scope["comfy_scheme"] == "https" else SECURITY
        exchange = Exchange(scope, receive, send, self._larger.get(scope["path"], self._limit), security)
        scope["comfy_request_id"] = exchange.request_id
        REQUEST_ID.set(exchange.request_id)  # each request has a task, and so a context, of its own
        started = time.perf_counter()
        self._measures.entered()
        try:
            await self._answer(exchange, scope)
        finally:
            self._measures.left()
            self._note(exchange, scope, time.perf_counter() - started)

    async def _answer(self, exchange: "Exchange", scope: Scope) -> None:
        if exchange.announced > exchange.limit:
            response = error_answer(too_large(exchange.limit), scope)
            await linger(response, scope, exchange.unlimited_receive, exchange.send)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or 499
        except Exception:
            log.exception("unhandled_error", path=template_of(scope))
            if exchange.status == 0 and scope["type"] == "http":
                await error_answer(internal_error(), scope)(scope, exchange.receive, exchange.send)
            elif not exchange.complete:
                raise  # the server cuts the connection: half an answer must not look whole

    def _note(self, exchange: "Exchange", scope: Scope, seconds: float) -> None:
        template = template_of(scope)
        if scope["type"] == "websocket":
            log.info("websocket", path=template, code=exchange.status, seconds=round(seconds, 6))
            return
        self._measures.answered(exchange.method, template, exchange.status, seconds)
        shown = int(seconds * 1e6) / 1e6
        if template in QUIET:
            log.debug("request", method=exchange.method, path=template, status=exchange.status, seconds=shown)
            return
        self._tell(
            exchange.method,
            template,
            exchange.status,
            shown,
            exchange.request_id,
            job_of(scope),
            scope.get("comfy_account_id"),
        )


class Exchange:
    """One request and its answer, as they pass."""

    __slots__ = (
        "_read",
        "_receive",
        "_scope",
        "_security",
        "_send",
        "announced",
        "complete",
        "is_head",
        "limit",
        "method",
        "request_id",
        "status",
        "unlimited_receive",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limit: int,
        security: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self._receive = self.unlimited_receive = receive
        self._scope = scope
        self._send = send
        self.limit = limit
        self._security = security
        self._read = 0
        self.status = 0
        self.complete = False
        self.announced = 0
        self.request_id = ""
        self.method = scope.get("comfy_method") or scope.get("method", "GET")
        self.is_head = self.method == "HEAD"
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _SANE.fullmatch(value):
                self.request_id = value.decode()
            elif name == b"content-length" and _DIGITS.fullmatch(value):
                self.announced = int(value)
        if not self.request_id:
            self.request_id = new_request_id()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self.limit:
                raise too_large(self.limit)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            message["headers"] = self._completed(message["headers"])
        elif kind == "http.response.body":
            self.complete = not message.get("more_body", False)
            if self.is_head:
                message = {"type": kind, "body": b"", "more_body": message.get("more_body", False)}
        elif kind == "websocket.accept":
            self.status = 101
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
        elif kind == "websocket.close":
            self.status = message.get("code", 1000)
        await self._send(message)

    def _completed(self, headers: Any) -> list[tuple[bytes, bytes]]:
        """With what every answer carries."""
        given = {name for name, _ in headers}
        return [
            *headers,
            (b"x-request-id", self.request_id.encode()),
            *self._security,
            *(header for header in API_ONLY if header[0] not in given),
            *self._scope.get("comfy_limits", ()),
        ]


def _canonical(scope: Scope) -> Scope:
    """A trailing slash is accepted, operators' paths stand below `/api/v1` too, and HEAD is a GET whose body is not
    sent.
    """
    path = scope["path"]
    changed: dict[str, Any] = {}
    if path.endswith("/") and path != "/":
        path = changed["path"] = path[:-1]
    if path.startswith(ADMIN):
        changed["path"] = path.removeprefix(BEFORE_ADMIN)
    if scope.get("method") == "HEAD":
        changed["method"] = "GET"
        changed["comfy_method"] = "HEAD"
    return {**scope, **changed} if changed else scope


def job_of(scope: Scope) -> str | None:
    """The job that a request made or names; what is no job's id may be anything."""
    made = scope.get("comfy_job_id")
    named = made or scope.get("path_params", {}).get("job_id")
    return named if isinstance(named, str) and (made or JOB_ID.fullmatch(named)) else None


def template_of(scope: Scope) -> str:
    path = scope.get("comfy_template") or getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"
