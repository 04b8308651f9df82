"""A client of the service: submits jobs, follows them on WebSockets, fetches results."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.bare.protocol import MODEL, STEPS, WIDTH

WAIT_SECONDS: Final = 120.0
AT_ONCE: Final = 32


def request() -> dict[str, Any]:
    """The service's words for the graph of the bare protocol."""
    return {"prompt": "a lighthouse at dawn", "model": MODEL, "width": WIDTH, "height": WIDTH, "steps": STEPS}


class Client:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def submit(self) -> str:
        async with self.http.post("/api/v1/jobs", json=request()) as answer:
            if answer.status != 202:
                raise RuntimeError(f"a submission was answered {answer.status}: {await answer.text()}")
            return str((await answer.json())["job_id"])

    async def submit_many(self, count: int) -> list[str]:
        """Ids in no order."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> str:
            async with room:
                return await self.submit()

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def done(
        self, job_id: str, *, following: asyncio.Event | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Follow a job to its end: when `done` arrived, in monotonic seconds, and the job in it."""
        path = f"/ws/jobs/{job_id}"
        async with self.http.ws_connect(path, params={"previews": "false"}, compress=0) as socket:
            while True:
                frame = await socket.receive(WAIT_SECONDS)
                arrived = time.monotonic()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    raise RuntimeError(f"the stream of a job ended early: {frame.type.name}")
                if following is not None:
                    following.set()
                if b'"done"' in frame.data.encode():
                    event = orjson.loads(frame.data)
                    if event["type"] == "done":
                        return arrived, event["job"]

    async def fetch(self, url: str) -> bytes:
        async with self.http.get(url) as answer:
            answer.raise_for_status()
            return await answer.read()

    @asynccontextmanager
    async def following_all(self) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
        """One socket for all jobs, open before they are; gives what waits for the success of a job."""
        async with self.http.ws_connect("/ws/jobs", params={"previews": "false"}, compress=0) as socket:

            async def finished(job_id: str) -> None:
                while True:
                    event = orjson.loads((await socket.receive(WAIT_SECONDS)).data)
                    if event["job_id"] == job_id and event["type"] == "done":
                        if event["status"] != "succeeded":
                            raise RuntimeError(f"a job ended {event['status']}: {event['job']['error']}")
                        return

            yield finished


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Client(http)
