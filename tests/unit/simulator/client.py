"""A small client for the tests: submits, listens, looks up."""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from comfy_api_service.simulator import Simulator, SimulatorSettings

LIMIT = 15.0
FAST = SimulatorSettings(
    seconds_per_step=0, seconds_per_load=0, seconds_between_prompts=0, cleanup_seconds=0, previews=False
)


def fast(**changes: Any) -> SimulatorSettings:
    """Settings without any waiting."""
    return dataclasses.replace(FAST, **changes)


@dataclasses.dataclass
class Frame:
    type: str
    data: Any


class Client:
    """One client id with one socket."""

    def __init__(self, url: str, client_id: str | None = None) -> None:
        self.url = url
        self.client_id = client_id or uuid.uuid4().hex
        self.frames: list[Frame] = []
        self.http = aiohttp.ClientSession()
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()
        await self.http.close()

    async def connect(self, *, features: bool = False) -> Frame:
        self._socket = await self.http.ws_connect(f"{self.url}/ws?clientId={self.client_id}", autoping=False)
        greeting = await self.receive()
        if features:
            message = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            await self.socket.send_json(message)
            await self.receive()
        return greeting

    @property
    def socket(self) -> aiohttp.ClientWebSocketResponse:
        assert self._socket is not None
        return self._socket

    async def disconnect(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def receive(self) -> Frame:
        message = await asyncio.wait_for(self.socket.receive(), LIMIT)
        if message.type is aiohttp.WSMsgType.TEXT:
            content = json.loads(message.data)
            frame = Frame(content["type"], content["data"])
        elif message.type is aiohttp.WSMsgType.BINARY:
            frame = Frame("binary", message.data)
        else:
            frame = Frame(message.type.name, message.data)
        self.frames.append(frame)
        return frame

    async def until(self, kind: str) -> Frame:
        while (frame := await self.receive()).type != kind:
            assert frame.type not in {"CLOSED", "CLOSE", "CLOSING", "ERROR"}, frame
        return frame

    async def drain(self) -> None:
        """Everything that was sent until now."""
        await self.socket.ping()
        await self.until("PONG")

    def told(self, *kinds: str) -> list[Any]:
        return [f.data for f in self.frames if f.type in kinds]

    async def submit(self, graph: dict[str, Any], prompt_id: str | None = None, **more: Any) -> str:
        status, body = await self.try_submit(graph, prompt_id, **more)
        assert status == 200, body
        accepted: str = body["prompt_id"]
        return accepted

    async def try_submit(
        self, graph: dict[str, Any], prompt_id: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        prompt_id = prompt_id or str(uuid.uuid4())
        body = {"prompt": graph, "client_id": self.client_id, "prompt_id": prompt_id, **more}
        return await self.post("/prompt", body)

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.post(self.url + path, json=body) as answer:
            return answer.status, await _content(answer)

    async def get(self, path: str, **params: Any) -> tuple[int, Any]:
        async with self.http.get(self.url + path, params=params) as answer:
            return answer.status, await _content(answer)

    async def entry(self, prompt_id: str) -> dict[str, Any]:
        """The prompt's place in history, which it must have."""
        _, found = await self.get(f"/history/{prompt_id}")
        entry: dict[str, Any] = found[prompt_id]
        return entry

    async def files(self, prompt_id: str) -> list[bytes]:
        """What the prompt saved."""
        found = []
        for output in (await self.entry(prompt_id))["outputs"].values():
            for file in output["images"]:
                status, content = await self.get("/view", **file)
                assert status == 200
                found.append(content)
        return found


async def _content(answer: aiohttp.ClientResponse) -> Any:
    content = await answer.read()
    return json.loads(content) if answer.content_type == "application/json" else content


async def eventually(condition: Callable[[], object]) -> None:
    """Poll until the condition holds."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def run(simulator: Simulator, client: Client, graph: dict[str, Any], **more: Any) -> str:
    """Submit and wait for the end, whatever it is."""
    prompt_id = await client.submit(graph, **more)
    await simulator.idle()
    return prompt_id
