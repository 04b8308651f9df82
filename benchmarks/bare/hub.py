"""A bare WebSocket hub: uvicorn, Starlette, a queue a listener, and a publisher that takes orders.

`python -m benchmarks.bare.hub PORT`. It listens with the same parts of uvicorn as the service.
"""

import asyncio
import contextlib
import sys
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks import orders, publishing
from benchmarks.servers import HOST


class Hub:
    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[str]] = {}

    async def ping(self, _request: Request) -> Response:
        return PlainTextResponse("pong")

    async def listen(self, websocket: WebSocket) -> None:
        name, queue = websocket.path_params["name"], asyncio.Queue[str]()
        await websocket.accept()
        self._queues[name] = queue
        await websocket.send_text('{"type": "snapshot"}')
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(await queue.get())

    async def publish(self, names: list[str], rate: float, seconds: float) -> Any:
        def one(number: int) -> None:
            name = names[number % len(names)]
            event = {
                "type": "progress",
                "job_id": name,
                "status": "running",
                "progress": 50.0,
                "step": 10,
                "total": 20,
                "node": "5",
                "message": publishing.stamp(),
            }
            self._queues[name].put_nowait(orjson.dumps(event).decode())

        return await publishing.evenly(rate, seconds, one)


async def main() -> None:
    hub = Hub()
    app = Starlette(routes=[Route("/ping", hub.ping), WebSocketRoute("/ws/jobs/{name}", hub.listen)])
    config = uvicorn.Config(
        app,
        host=HOST,
        port=int(sys.argv[1]),
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=2048,
    )
    serving = asyncio.create_task(uvicorn.Server(config).serve())
    obeying = asyncio.create_task(orders.obey({"publish": hub.publish}))
    await asyncio.wait({serving, obeying}, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    orders.run(main)
