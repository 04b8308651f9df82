"""The events on WebSockets: of one job, or of all of the caller's jobs.

Text messages are events as JSON objects, the same as in the stream of Server-Sent Events. After an event
`preview` one binary message follows, the picture itself. What a caller sends is read and ignored.

Close codes: 1000 after `done`; 4404 there is no such job; 1012 the service stops, come back with
`last_event_id`; 1008 messages were not taken for 30 seconds; 1013 a part of the service is away, come back
later; 1011 a fault of the service. An upgrade with a parameter at fault, to an unknown path, or from a page
of a foreign origin is denied with an error as HTTP has it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Query
from starlette.websockets import WebSocket, WebSocketDisconnect

from comfy_api_service.api.addresses import base_of
from comfy_api_service.api.answers import dumps
from comfy_api_service.api.events import event
from comfy_api_service.api.listening import End, Listener
from comfy_api_service.api.parameters import Flag, LastId
from comfy_api_service.api.state import Caller, state_of
from comfy_api_service.domain.errors import Code, NotFound, Refused, ServiceError
from comfy_api_service.services.views import Notice, Pictured

CLOSE: Final[Mapping[End, tuple[int, str]]] = {
    End.DONE: (1000, "The job has ended."),
    End.DRAINING: (1012, "The service stops; come back with last_event_id."),
    End.TOO_SLOW: (1008, "Messages were not taken in time."),
}
NOT_FOUND: Final = 4404
AWAY: Final = 1013
FAULT: Final = 1011
log = structlog.get_logger()
router = APIRouter()


@router.websocket("/ws/jobs")
async def watch_account(websocket: WebSocket, caller: Caller, previews: Flag = True) -> None:
    notices = state_of(websocket).services.watcher.account(caller, previews=previews)
    await _serve(websocket, notices)


@router.websocket("/ws/jobs/{job_id}")
async def watch_job(
    websocket: WebSocket,
    caller: Caller,
    job_id: str,
    previews: Flag = True,
    last_event_id: Annotated[LastId, Query()] = None,
) -> None:
    notices = state_of(websocket).services.watcher.job(caller, job_id, after=last_event_id, previews=previews)
    await _serve(websocket, notices)


async def _serve(websocket: WebSocket, notices: AsyncIterator[Notice]) -> None:
    _check_origin(websocket)
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
        end = await Listener(tell).run(notices, left=left, draining=state.draining)
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
    with suppress(OSError, RuntimeError, WebSocketDisconnect):  # it may have gone already
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
