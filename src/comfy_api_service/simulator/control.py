"""The faults and the record over HTTP, for tests that run the simulator as a process of its own.

`POST /_simulator/faults/{name}` with the method's arguments as a JSON object; `GET /_simulator/record`.
"""

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .answers import as_json, body_of
from .faults import REMOTE

if TYPE_CHECKING:
    from .server import Simulator

PREFIX = "/_simulator"
SOON = 0.05
"""`die` and `restart` begin after the answer has left."""


class ControlRoutes:
    """Off unless the settings say so. Exempt from hanging and slowness."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", f"{PREFIX}/faults/{{name}}", self.fault),
            ("GET", f"{PREFIX}/record", self.record),
        ]

    async def record(self, _request: web.Request) -> web.Response:
        return as_json(self._simulator.record.as_json())

    async def fault(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in REMOTE:
            return as_json({"error": f"no such fault: {name}"}, status=404)
        method = getattr(self._simulator.faults, name)
        try:
            arguments = await body_of(request) if request.can_read_body else {}
            inspect.signature(method).bind(**arguments)
        except (ValueError, TypeError) as error:
            return as_json({"error": str(error)}, status=400)
        if name in {"die", "restart"}:
            task = asyncio.create_task(self._later(method, arguments))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            result = method(**arguments)
            if inspect.isawaitable(result):
                await result
        return as_json({"ok": True})

    @staticmethod
    async def _later(method: Any, arguments: dict[str, Any]) -> None:
        await asyncio.sleep(SOON)
        await method(**arguments)
