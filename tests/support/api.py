"""The application under test: called in place or on a real port; its answers held to the OpenAPI document."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs
import uvicorn

from comfy_api_service.api.app import Api, openapi_text

Client = httpx2.AsyncClient
SMALL: dict[str, Any] = {"prompt": "a lighthouse at dawn", "width": 64, "height": 64, "steps": 2}


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi_text("0.0.0"))
    return found


@cache
def _validator(path: str, method: str, status: str) -> Any:
    responses = _document()["paths"][path][method]["responses"]
    schema = responses[status]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": _document()["components"]})


def _template(path: str, method: str) -> str | None:
    paths = _document()["paths"]
    if path in paths and method in paths[path]:
        return path
    for template in paths:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)).replace(
            "/artifacts/[^/]+", "/artifacts/.+"
        )
        if method in paths[template] and re.fullmatch(pattern, path):
            return str(template)
    return None


async def hold_to_document(response: httpx2.Response) -> None:
    """The answer's status is documented, and its JSON is as documented."""
    method = response.request.method.lower()
    template = _template(response.request.url.path.rstrip("/") or "/", method)
    if template is None or response.status_code == 405:
        return
    if response.headers.get("content-type") != "application/json":
        return
    await response.aread()
    _validator(template, method, str(response.status_code)).validate(response.json())


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[Client]:
    async with Client(
        transport=httpx2.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://service.test",
        event_hooks={"response": [hold_to_document]},
    ) as client:
        yield client


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The application on a real port, as the shell serves it."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        proxy_headers=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            if isinstance(app, Api):
                app.drain()
            server.should_exit = True
            await task
