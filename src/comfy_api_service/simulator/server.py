"""The simulated server as a whole: listening, living, dying, and the faults of its answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .answers import FileAnswer, trouble
from .control import PREFIX, ControlRoutes
from .engine import Engine
from .faults import Faults
from .files import Files
from .inventory import Inventory
from .record import Record
from .routes_files import FileRoutes
from .routes_info import InfoRoutes
from .routes_prompts import PromptRoutes
from .settings import SimulatorSettings

THREADS = 2
"""For drawing and files; a real server has one worker, and so has this: the rest serves requests."""


class Simulator:
    """`async with Simulator(SimulatorSettings(...)) as sim: sim.url`. Lives on the current event loop."""

    def __init__(
        self, settings: SimulatorSettings | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.settings = settings or SimulatorSettings()
        self.host = host
        self.port = port
        self.record = Record()
        self.faults = Faults(self)
        self.files: Files
        self.engine: Engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="simulator")
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._listener is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        self.files = await asyncio.to_thread(Files, self.settings.folder)
        inputs = await asyncio.to_thread(self.files.inputs)
        inventory = Inventory(self.settings, inputs)
        inventory.object_info()
        self.engine = self._new_engine(inventory)
        app = web.Application(client_max_size=self.settings.max_upload_size, middlewares=[self._middleware])
        self._add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        self.engine.start()
        await self._listen()

    async def close(self) -> None:
        """Stop for good, and remove the temporary folder if there is one."""
        self.faults.gate.set()
        if self.alive:
            await self.kill()
        if self._runner is not None:
            await self._runner.cleanup()
        self._threads.shutdown(wait=True, cancel_futures=True)
        await asyncio.to_thread(self.files.close)

    async def kill(self) -> None:
        """Cut all connections and forget everything; `faults.die` for tests."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        if self._runner is not None and self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        await self.engine.stop()

    async def revive(self) -> None:
        """A new life on the same port."""
        if self.alive:
            return
        self.faults.heal()
        await asyncio.to_thread(self.files.clear_temp)
        inputs = await asyncio.to_thread(self.files.inputs)
        self.engine = self._new_engine(Inventory(self.settings, inputs))
        self.engine.start()
        await self._listen()

    async def idle(self, limit: float = 30.0) -> None:
        """Wait until nothing runs and nothing waits, all frames queued."""
        async with asyncio.timeout(limit):
            await self.engine.idle.wait()

    async def look_for(self, names: Iterable[Any]) -> dict[str, bool]:
        """Which of these input files there are."""

        def work() -> dict[str, bool]:
            found = {}
            for name in names:
                path, exists = self.files.find_input(str(name))
                found[str(name)] = exists and (path is not None or not self.settings.newer)
            return found

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def inputs_changed(self) -> None:
        self.engine.inventory.set_inputs(await asyncio.to_thread(self.files.inputs))

    def _new_engine(self, inventory: Inventory) -> Engine:
        return Engine(
            settings=self.settings,
            files=self.files,
            inventory=inventory,
            record=self.record,
            frame_faults=self.faults.frames,
            node_faults=self.faults.nodes,
            gate=self.faults.gate,
            threads=self._threads,
        )

    def _add_routes(self, app: web.Application) -> None:
        prompts = PromptRoutes(self)
        for source in (prompts, FileRoutes(self), InfoRoutes(self)):
            for method, path, handler in source.routes():
                for prefix in ("", "/api") if path != "/" else ("",):
                    _route(app, method, prefix + path, handler)
        for method, path, handler in prompts.api_routes():
            _route(app, method, path, handler)
        if self.settings.control:
            for method, path, handler in ControlRoutes(self).routes():
                _route(app, method, path, handler)

    async def _listen(self) -> None:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("not started")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._runner.server, self.host, self.port, backlog=512)
        self.port = self._listener.sockets[0].getsockname()[1]

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        faults, path = self.faults, request.path
        if path.startswith(PREFIX):
            answer: web.StreamResponse = await handler(request)
            return answer
        self.record.request(request.method, path)
        await faults.gate.wait()
        if faults.delay > 0:
            await asyncio.sleep(faults.delay)
        if (status := faults.take_error()) is not None:
            return trouble() if status == 500 else web.Response(status=status)
        is_prompt = request.method == "POST" and path.endswith("/prompt")
        response: web.StreamResponse = await handler(request)
        await faults.gate.wait()
        if is_prompt and response.status == 200 and faults.take_drop():
            _cut(request)
        if isinstance(response, web.Response | FileAnswer) and faults.take_half(path):
            await _send_half(request, response)
        return response


def _route(app: web.Application, method: str, path: str, handler: Any) -> None:
    if method == "GET":
        app.router.add_get(path, handler)
    else:
        app.router.add_post(path, handler)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _send_half(request: web.Request, response: web.Response | FileAnswer) -> None:
    """Promise the whole body, send half of it, hang up."""
    if isinstance(response, FileAnswer):
        body = await asyncio.to_thread(response.path.read_bytes)
    else:
        body = response.body if isinstance(response.body, bytes) else b""
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.content_length = len(body)
    with contextlib.suppress(ConnectionError):
        await partial.prepare(request)
        await partial.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()


async def serve(settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 8188) -> None:
    """Run until cancelled."""
    async with running(settings, host, port):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def running(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Simulator]:
    """A simulator that is closed at the end, whatever happens."""
    async with Simulator(settings, host=host, port=port) as simulator:
        yield simulator
