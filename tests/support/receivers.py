"""Receivers of webhooks on a real port, that answer as they are told and keep what came."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook
from tests.support.answering import answering
from tests.support.stack import until


@dataclass(frozen=True)
class Came:
    """One request: `body` as it was sent."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["data"]
        return found

    def verified(self, secret: str) -> Any:
        """By the standard library of receivers. Raises if the signature is not by this secret."""
        return Webhook(secret).verify(self.body, dict(self.headers))


Respond = Callable[[Came], web.Response]


@dataclass
class Receiver:
    """`respond` says what is answered; `gate` holds every answer back while it is not set."""

    url: str = ""
    came: list[Came] = field(default_factory=list)
    respond: Respond = lambda _: web.Response(status=204)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    open_now: int = 0
    open_most: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def answers(self, status: int, **headers: str) -> None:
        self.respond = lambda _: web.Response(status=status, headers=headers)

    def types(self) -> list[str]:
        return [one.document["type"] for one in self.came]

    async def until(self, count: int) -> list[Came]:
        """What came, once it is so much."""
        await until(lambda: len(self.came) >= count)
        return self.came

    async def handle(self, request: web.Request) -> web.Response:
        came = Came(request.path, dict(request.headers), await request.read())
        self.came.append(came)
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await self.gate.wait()
        finally:
            self.open_now -= 1
        return self.respond(came)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with answering(made.handle) as url:
        made.url = f"{url}/hooks"
        try:
            yield made
        finally:
            made.gate.set()
