"""A TCP line that can be made slow, deaf, cut or half, by named methods; real sockets, on a loop of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")
PIECE: Final = 65_536


class Line:
    """From a port of its own to `target` (a port of this machine). All methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self.broken = 0
        """Connections that were cut, refused, or whose answer was halved."""
        self._loop = loop
        self._target = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._halves = 0
        self._swallows = False
        self._flows = asyncio.Event()

    # --- the faults

    def slow(self, seconds: float) -> None:
        """Whatever the server says arrives so much later."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def refuse(self) -> None:
        """Nobody listens any more; what is connected stays."""
        self._run(self._stop_listening())

    def cut(self) -> None:
        """Every connection is reset."""
        self._call(self._cut)

    def halve(self, times: int) -> None:
        """Of the next pieces that the server sends only the first half passes, and the connection ends."""
        self._call(lambda: setattr(self, "_halves", times))

    def hold(self) -> None:
        """Nothing passes in either direction, nothing is lost, nobody is told."""
        self._call(self._flows.clear)

    def swallow(self) -> None:
        """What is sent is lost, in both directions; connections stay."""
        self._call(lambda: setattr(self, "_swallows", True))

    def heal(self) -> None:
        """Listen, and pass everything; what was swallowed is gone, so the connections that lost it end."""
        self._run(self._heal())

    def lead_to(self, port: int) -> None:
        """New connections go to this port."""
        self._call(lambda: setattr(self, "_target", port))

    def halves_left(self) -> int:
        return self._halves

    # --- on the loop

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def listen(self) -> None:
        self._flows.set()
        self._run(self._listen())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _heal(self) -> None:
        if self._swallows:
            self._cut()
        self._delay, self._halves, self._swallows = 0.0, 0, False
        self._flows.set()
        await self._listen()

    def _cut(self) -> None:
        for writer in tuple(self._open):
            self.broken += 1
            writer.transport.abort()

    async def close(self) -> None:
        await self._stop_listening()
        self._cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self.broken += 1
            writer.transport.abort()
            return
        for source, sink, other, answers in (
            (reader, to_server, writer, False),
            (there, writer, to_server, True),
        ):
            task = asyncio.create_task(self._pass_on(source, sink, other, answers=answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        """One direction. A delayed piece delays none behind it: it is the line that is long."""
        self._open.add(sink)
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._send(pieces, sink, other, answers=answers))
        try:
            with contextlib.suppress(OSError):
                while piece := await source.read(PIECE):
                    due = self._loop.time() + (self._delay if answers else 0.0)
                    pieces.put_nowait((due, piece))
            pieces.put_nowait((0.0, b""))
            await sending
        finally:
            sending.cancel()
            self._open.discard(sink)
            sink.close()

    async def _send(
        self,
        pieces: "asyncio.Queue[tuple[float, bytes]]",
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, piece = await pieces.get()
                if not piece:
                    return
                await asyncio.sleep(max(due - self._loop.time(), 0.0))
                await self._flows.wait()
                if self._swallows:
                    continue
                if answers and self._halves > 0:
                    self._halves -= 1
                    self.broken += 1
                    sink.write(piece[: len(piece) // 2])
                    await sink.drain()
                    other.transport.abort()
                    return
                sink.write(piece)
                await sink.drain()


@contextmanager
def lines() -> Iterator[Callable[[], Line]]:
    """Makes lines; they end with the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lines", daemon=True)
    thread.start()
    made: list[Line] = []

    def make() -> Line:
        line = Line(loop)
        made.append(line)
        line.listen()
        return line

    try:
        yield make
    finally:
        for line in made:
            asyncio.run_coroutine_threadsafe(line.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
