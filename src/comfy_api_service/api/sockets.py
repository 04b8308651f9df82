"""The events on WebSockets: of one job, or of all of the caller's jobs.

Text messages are events as JSON objects, the same as in the stream of Server-Sent Events. After an event
`preview` one binary message follows, the picture itself. What a caller sends is read and ignored.

Close codes: 1000 after `done`; 4401 the credential is good no more; 4404 there is no such job; 1012 the service
stops, come back with `last_event_id`; 1008 messages were not taken for 30 seconds; 1013 a part of the service is
away, come back later; 1011 a fault of the service. An upgrade without a good credential (browsers append
`?ticket=`), with a parameter at fault, to an unknown path, or from a page of a foreign origin is denied with an
error as HTTP has it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from comfy_api_service.api.answers import dumps
from comfy_api_service.api.errors import error_answer
from comfy_api_service.api.events import event
from comfy_api_service.api.listening import End, Listener
from comfy_api_service.api.options import jobs_switched_off
from comfy_api_service.api.parameters import LAST_ID_MAX
from comfy_api_service.api.reading import truth, whole_number
from comfy_api_service.api.state import base_of, grant, principal, require, state_of
from comfy_api_service.domain.credentials import Scope as Allowed
from comfy_api_service.domain.errors import (
    Code,
    FieldError,
    NotFound,
    Refused,
    ServiceError,
    ValidationFailed,
)
from comfy_api_service.domain.principal import Principal
from comfy_api_service.services.views import Notice, Pictured

PATH: Final = "/ws/jobs"
CLOSE: Final[Mapping[End, tuple[int, str]]] = {
    End.DONE: (1000, "The job has ended."),
    End.DRAINING: (1012, "The service stops; come back with last_event_id."),
    End.TOO_SLOW: (1008, "Messages were not taken in time."),
    End.REVOKED: (4401, "The credential is good no more."),
}
NOT_FOUND: Final = 4404
AWAY: Final = 1013
FAULT: Final = 1011
CLOSE_SECONDS: Final = 2.0
log = structlog.get_logger()


class Sockets:
    """Plain ASGI for every WebSocket: the framework's layers cost 10 kB for each that waits."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        try:
            found, notices = await self._notices(websocket)
        except ServiceError as refusal:
            await deny(websocket, refusal)
            return
        await _serve(websocket, found, notices)

    async def _notices(self, websocket: WebSocket) -> tuple[Principal, AsyncIterator[Notice]]:
        path = websocket.scope["path"]
        of_all = path == PATH
        job_id = path.removeprefix(f"{PATH}/")
        if not of_all and (job_id == path or "/" in job_id):
            raise NotFound("path")
        websocket.scope["comfy_template"] = PATH if of_all else f"{PATH}/{{job_id}}"
        if not self._enabled:
            raise jobs_switched_off()
        _check_origin(websocket)
        previews, after = _options(websocket)
        watcher = state_of(websocket).services.watcher
        found = await principal(websocket, ticket=websocket.query_params.get("ticket"))
        require(found, Allowed.READ)
        grant(websocket, await state_of(websocket).services.throttle.reads(found.account))
        if of_all:
            return found, watcher.account(found.account, previews=previews)
        return found, watcher.job(found.account, job_id, after=after, previews=previews)


async def deny(websocket: WebSocket, refusal: ServiceError) -> None:
    """Instead of an upgrade, an answer as HTTP has it, where the server can."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(error_answer(refusal, websocket.scope))
    else:
        await websocket.close(1008, refusal.message[:120])


def _options(websocket: WebSocket) -> tuple[bool, int | None]:
    """Whether previews are wanted, and the last id that the caller knows."""
    query = websocket.query_params
    faults = []
    previews, after = True, None
    try:
        previews = bool(truth(query.get("previews", "true")))
    except ValueError as fault:
        faults.append(FieldError("previews", str(fault)))
    try:
        after = whole_number(query.get("last_event_id"))
        if after is not None and not 0 <= after <= LAST_ID_MAX:
            raise ValueError(f"must be from 0 to {LAST_ID_MAX}")
    except ValueError as fault:
        faults.append(FieldError("last_event_id", str(fault)))
    if faults:
        raise ValidationFailed(faults)
    return previews, after


async def _serve(websocket: WebSocket, found: Principal, notices: AsyncIterator[Notice]) -> None:
    state = state_of(websocket)
    base = base_of(websocket)

    async def tell(notice: Notice) -> None:
        await websocket.send({"type": "websocket.send", "text": dumps(event(notice, base)).decode()})
        if isinstance(notice, Pictured):
            await websocket.send({"type": "websocket.send", "bytes": notice.preview.picture})

    async def left() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    await websocket.accept()
    state.services.metrics.websockets.inc()
    try:
        end = await Listener(tell).run(
            notices,
            left=left,
            draining=state.draining,
            revoked=lambda gone: state.services.access.watch(found, gone),
        )
        if end in CLOSE:
            await _close(websocket, *CLOSE[end])
    except NotFound as absent:
        await _close(websocket, NOT_FOUND, absent.message)
    except ServiceError as away:
        await _close(websocket, AWAY, away.message[:120])
    except Exception:
        log.exception("websocket_failed")
        await _close(websocket, FAULT, "The service made a mistake.")
    finally:
        state.services.metrics.websockets.dec()


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    """It may have gone already, or take nothing more: then the server cuts it off."""
    with suppress(OSError, RuntimeError, WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code, reason)


def _check_origin(websocket: WebSocket) -> None:
    """Browsers let any page open a WebSocket; only this service's own pages and the allowed ones may listen."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return
    options = state_of(websocket).options
    own = {websocket.headers.get("host"), urlsplit(options.public_url or "").netloc or None}
    if urlsplit(origin).netloc in own or origin in options.cors_origins or "*" in options.cors_origins:
        return
    raise Refused(Code.FORBIDDEN, "Pages of this origin may not listen here; see CORS_ORIGINS.")
