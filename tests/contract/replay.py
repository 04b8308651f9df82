"""Does to a simulator what the recorder did to a real server, and notes what came back in the same form."""

import asyncio
import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, cast

import aiohttp
from PIL import Image
from tests.contract.recordings import WORKER_DIES, Event, Session, load

from comfy_api_service.simulator import Simulator, SimulatorSettings

LIMIT = 8.0
STALLS = {
    # A real step takes so long that the recorder's requests fall between two of them. Here the prompt is held
    # at the same place: before its first step, or after the one that was seen last.
    "pipelined_two_and_delete_queued": 0,
    "interrupt_running": 1,
    "server_killed_midrun": 1,
}
UPLOADS: list[dict[str, str]] = [
    # Multipart bodies are not in the recordings; these give the recorded answers.
    {"filename": "in.png"},
    {"filename": "in.png"},
    {"filename": "in.png", "overwrite": "true"},
    {"filename": "in.png", "subfolder": "jobs/a"},
    {"filename": "in.png", "subfolder": "../../x"},
    {"filename": "..%2F..%2F..%2Ftmp%2Fevil.png"},
]


@dataclasses.dataclass
class Observed:
    """What one scenario gave."""

    http: list[Event] = dataclasses.field(default_factory=list)
    frames: list[Event] = dataclasses.field(default_factory=list)
    failure: str | None = None


class Socket:
    """A client's socket that can tell when everything sent so far has come in."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, into: list[Event]) -> None:
        self._socket = socket
        self._into = into

    async def receive(self) -> Event | None:
        """The next frame, noted; None for the pong that answers `drain`."""
        message = await asyncio.wait_for(self._socket.receive(), LIMIT)
        if message.type is aiohttp.WSMsgType.PONG:
            return None
        if message.type is aiohttp.WSMsgType.TEXT:
            content = json.loads(message.data)
            event = {"dir": "ws", "type": content["type"], "data": content["data"]}
        elif message.type is aiohttp.WSMsgType.BINARY:
            number = int.from_bytes(message.data[:4], "big")
            event = {"dir": "ws", "type": "binary", "event": number, "head": message.data[4:12].hex()}
        else:
            event = {"dir": "ws", "type": str(int(message.type)), "data": None}
        self._into.append(event)
        return event

    async def until(self, count: int) -> None:
        while len(self._into) < count:
            await self.receive()

    async def drain(self) -> None:
        """Take in all that the server has sent: it answers the ping after that."""
        await self._socket.ping()
        while await self.receive() is not None:
            pass

    async def close(self) -> None:
        await self._socket.close()


class Replay:
    """One session: a simulator of the right version, and the recorder's steps on it."""

    def __init__(self, session: Session, simulator: Simulator, http: aiohttp.ClientSession) -> None:
        self._session = session
        self._simulator = simulator
        self._http = http
        self._uploads = iter(UPLOADS)
        self._scenario = ""

    async def warm_up(self) -> None:
        graph: dict[str, Any] = load(self._session.version, "txt2img_success")[0]["request"]["prompt"]
        for seed in range(self._session.warm_ups):
            graph = json.loads(json.dumps(graph))
            graph["3"]["inputs"]["seed"] = seed
            graph["9"]["inputs"]["filename_prefix"] = "warm"
            async with self._http.post(f"{self._simulator.url}/prompt", json={"prompt": graph}) as answer:
                assert answer.status == 200
            await self._simulator.idle()

    async def scenario(self, name: str) -> Observed:
        events = load(self._session.version, name)
        seen = Observed()
        self._scenario = name
        self._hold(name, events)
        try:
            async with asyncio.timeout(LIMIT):
                await self._run(events, seen)
        except (AssertionError, TimeoutError, aiohttp.ClientError) as error:
            seen.failure = f"{type(error).__name__}: {error}"
        self._simulator.faults.stall(on=False)
        if self._simulator.alive:
            await self._idle()
        return seen

    async def _idle(self) -> None:
        """Wait until nothing runs; behind a dead worker that never comes true, and nothing more happens."""
        if self._scenario != WORKER_DIES:
            await self._simulator.idle()

    def _hold(self, name: str, events: list[Event]) -> None:
        after = STALLS.get(name)
        if name == "ws_reconnect_midrun":
            # The step that went on while the client was away is lost to it: hold just before the next.
            back = next(i for i, e in enumerate(events) if e["dir"] == "note")
            after = next(e["data"]["value"] for e in events[back:] if e.get("type") == "progress") - 1
        if after is not None:
            self._simulator.faults.stall(after=after)

    async def _run(self, events: list[Event], seen: Observed) -> None:
        socket = await self._connect(events, seen)
        expected = 0
        for event in events:
            if socket is not None and event["dir"] != "ws":
                await socket.until(expected)
            if event["dir"] == "note":
                socket = await self._reconnect(socket, events, seen)
            elif event["dir"] == "http":
                await self._ask(event, seen)
            elif event["type"] == "TIMEOUT":
                await self._idle()
                if socket is not None:
                    await socket.until(expected)
                    await socket.drain()
            else:
                await self._before_frame(event, socket, expected)
                expected += 1
        if socket is not None:
            await socket.until(expected)
            await socket.close()

    async def _ask(self, event: Event, seen: Observed) -> None:
        if "method" not in event:
            await self._expect_nobody(event, seen)
            return
        seen.http.append(await self._request(event))
        running = self._simulator.engine.queue.running
        if event["path"] == "/interrupt" and running and event["request"]["prompt_id"] == running.prompt_id:
            self._simulator.faults.stall(on=False)

    async def _connect(self, events: list[Event], seen: Observed) -> Socket | None:
        """The recorder's socket: the prompt's client, or (other_client_sees) one with an id of its own."""
        greeting = next((e for e in events if e.get("type") == "status"), None)
        if greeting is None:
            return None
        url = f"{self._simulator.url}/ws?clientId={greeting['data']['sid']}"
        socket = Socket(await self._http.ws_connect(url, autoping=False), seen.frames)
        await socket.until(len(seen.frames) + 1)
        flags = {"supports_preview_metadata": True}
        if any(e.get("type") == "feature_flags" for e in events):
            await socket._socket.send_json({"type": "feature_flags", "data": flags})
            await socket.until(2)
        return socket

    async def _reconnect(self, socket: Socket | None, events: list[Event], seen: Observed) -> Socket | None:
        assert socket is not None
        await socket.close()
        await asyncio.wait_for(self._simulator.faults.stalled(), LIMIT)
        again = await self._connect(events, seen)
        self._simulator.faults.stall(on=False)
        return again

    async def _before_frame(self, event: Event, socket: Socket | None, expected: int) -> None:
        """Let a held prompt go on once the recorder only listened; kill the server where it was killed."""
        if event["type"] == "257" and socket is not None:
            await socket.until(expected)
            await self._simulator.faults.die()
            while (last := await socket.receive()) is None or last["type"] != "257":
                pass
        elif self._scenario == "pipelined_two_and_delete_queued":
            self._simulator.faults.stall(on=False)

    async def _request(self, event: Event) -> Event:
        arguments: dict[str, Any] = {}
        if event["path"].startswith("/upload"):
            arguments["data"] = self._form()
        elif event["method"] == "POST":
            body = event["request"]
            arguments["data"] = b"not JSON" if body is None else json.dumps(body).encode()
        url = self._simulator.url + event["path"]
        async with self._http.request(event["method"], url, **arguments) as answer:
            content = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            body = content.decode(errors="replace")
            if kind.startswith("application/json"):
                body = json.loads(content)
            elif kind.startswith("image/") and content:
                body = f"<{len(content)} binary characters>"
            headers = dict(answer.headers)
            if not content and event["method"] != "HEAD":
                headers.pop("Content-Type", None)
            return event | {"status": answer.status, "headers": headers, "body": body}

    async def _expect_nobody(self, event: Event, seen: Observed) -> None:
        try:
            await self._http.get(self._simulator.url + event["path"])
        except aiohttp.ClientConnectorError as error:
            seen.http.append(event | {"type": type(error).__name__})

    def _form(self) -> aiohttp.FormData:
        fields = next(self._uploads)
        picture = io.BytesIO()
        Image.new("RGB", (64, 64), (10, 20, 30)).save(picture, "PNG")
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", picture.getvalue(), filename=fields["filename"], content_type="image/png")
        for name in ("subfolder", "overwrite"):
            if name in fields:
                form.add_field(name, fields[name])
        return form


async def replay(session: Session) -> dict[str, Observed]:
    """The whole session, in order, on one simulator."""
    async with _started(session) as run:
        await run.warm_up()
        return {name: await run.scenario(name) for name in session.scenarios}


@contextlib.asynccontextmanager
async def _started(session: Session) -> AsyncIterator[Replay]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        output.mkdir()
        for number in range(1, session.saved_before + 1):
            (output / f"rec_{number:05}_.png").write_bytes(b"")
        settings = SimulatorSettings(
            protocol=cast(Literal["0.3.64", "0.8.0"], session.version),
            seconds_per_step=0.002,
            seconds_per_load=0,
            seconds_between_prompts=0,
            cleanup_seconds=0,
            models={
                "checkpoints": ("tiny_sd15.safetensors",),
                "upscale_models": session.upscale_models,
            },
            previews=session.previews,
            device_name="cpu",
            device_type="cpu",
            device_index=None,
            folder=Path(folder),
        )
        async with Simulator(settings) as simulator, aiohttp.ClientSession() as http:
            yield Replay(session, simulator, http)
