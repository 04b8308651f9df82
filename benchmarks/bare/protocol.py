"""ComfyUI's bare protocol: post a graph, follow the socket, fetch the file; no queue, no database, no API."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

STEPS: Final = 20
WIDTH: Final = 512
MODEL: Final = "v1-5-pruned-emaonly.safetensors"
WAIT_SECONDS: Final = 120.0
_JSON: Final = {"Content-Type": "application/json"}


def graph(seed: int, *, model: str = MODEL, steps: int = STEPS) -> dict[str, Any]:
    """Text to image, the graph that the service's own recipe gives for the same request."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse at dawn", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": WIDTH, "height": WIDTH, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 7.0,
                "sampler_name": "euler_ancestral",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
    }


Store = Callable[[str, bytes], Awaitable[object]]
"""Keeps bytes under a name."""


class BareClient:
    """One client of one server. `views` has the seconds that each `/view` took, until its last byte is there, and
    stored.
    """

    def __init__(
        self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, name: str
    ) -> None:
        self.views: list[float] = []
        self._http = http
        self._socket = socket
        self._name = name
        self._seeds = itertools.count(time.time_ns() % 2**40)
        self._files: dict[str, dict[str, str]] = {}

    async def post(self, *, model: str = MODEL, steps: int = STEPS) -> tuple[str, float]:
        """Post a prompt; its id and the moment it was sent, in monotonic seconds."""
        prompt_id = str(uuid.uuid4())
        body = {
            "prompt": graph(next(self._seeds), model=model, steps=steps),
            "client_id": self._name,
            "prompt_id": prompt_id,
        }
        sent_at = time.monotonic()
        async with self._http.post("/prompt", data=orjson.dumps(body), headers=_JSON) as answer:
            answer.raise_for_status()
            await answer.read()
        return prompt_id, sent_at

    async def ended(self) -> str:
        """The id of the next prompt that succeeds."""
        while True:
            frame = await self._socket.receive(WAIT_SECONDS)
            if frame.type is aiohttp.WSMsgType.BINARY:
                continue
            message = orjson.loads(frame.data)
            prompt_id = message["data"].get("prompt_id")
            if message["type"] == "executed" and message["data"].get("output"):
                self._files[prompt_id] = message["data"]["output"]["images"][0]
            elif message["type"] == "execution_success":
                return str(prompt_id)

    async def view(self, prompt_id: str, store: Store | None) -> None:
        began = time.monotonic()
        async with self._http.get("/view", params=self._files.pop(prompt_id)) as answer:
            answer.raise_for_status()
            content = await answer.read()
        if store is not None:
            await store(prompt_id, content)
        self.views.append(time.monotonic() - began)

    async def keep_filled(self, count: int, *, depth: int = 2, store: Store | None = None) -> None:
        """Run `count` prompts with `depth` in the server's queue as long as there are so many; fetch each file,
        and store it.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(min(depth, count)):
                group.create_task(self.post())
            for number in range(count):
                prompt_id = await self.ended()
                if number + depth < count:
                    group.create_task(self.post())
                group.create_task(self.view(prompt_id, store))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[BareClient]:
    name = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(url) as http,
        http.ws_connect("/ws", params={"clientId": name}, compress=0, max_msg_size=0) as socket,
    ):
        yield BareClient(http, socket, name)
