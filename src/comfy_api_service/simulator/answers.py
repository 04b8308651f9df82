"""The few shapes of answers that ComfyUI's routes give."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from .encoding import encode

TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"


def as_json(value: Any, status: int = 200) -> web.Response:
    return raw_json(encode(value), status)


def raw_json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def trouble() -> web.Response:
    """What comes of any error that a handler of a real server does not foresee."""
    return web.Response(status=500, text=TROUBLE)


async def body_of(request: web.Request) -> Any:
    """The JSON of a request, numbers of any size; ValueError if it is none."""
    return json.loads(await request.read())


class FileAnswer(web.FileResponse):
    """A file as a server sends it, with tag, date and ranges; `path` is where it is."""

    def __init__(self, path: Path, headers: Mapping[str, str]) -> None:
        super().__init__(path, headers=headers)
        self.path = path
