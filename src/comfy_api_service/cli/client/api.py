"""The HTTP API as the commands use it: JSON in and out, every refusal and every silence a `Fault`."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote, urlsplit

import httpx2

from comfy_api_service import __version__
from comfy_api_service.cli.causes import in_words
from comfy_api_service.cli.client.refusals import Document, refusal
from comfy_api_service.cli.faults import ExitCode, Fault

TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT: Final = httpx2.Timeout(90.0, connect=5.0)
"""A stream says something more often than this, if only a comment."""
GENERATE_SECONDS: Final = 20
"""How long one call of `generate` waits: less than the time-out."""
RECONNECTS: Final = 8
LONGEST_EVENT: Final = 16 * 1024**2
MOST_WORKFLOWS: Final = 10_000


class Unreachable(Fault):
    def __init__(self, server: str, why: str) -> None:
        super().__init__(
            f"No service answers at {server} ({why}).",
            "Start it with `comfy-api serve`, or name another with --server or COMFY_API_URL.",
            exit_code=ExitCode.UNREACHABLE,
        )


class Api:
    """`async with Api(server) as api`. A GET is asked again after a broken connection; a submission too, with
    its Idempotency-Key.
    """

    def __init__(
        self,
        server: str,
        api_key: str | None = None,
        *,
        pause: float = 0.5,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self._origin = _origin(self.server)
        self._pause = pause
        headers = {"User-Agent": f"comfy-api/{__version__}"}
        self._credential = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx2.AsyncClient(
            timeout=TIMEOUT, headers=headers, trust_env=not _local(self._origin[1]), transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def submit(self, body: Document, key: str) -> Document:
        return await self._json(
            "POST", "/api/v1/jobs", json=body, headers={"Idempotency-Key": key}, again=True
        )

    async def generate(self, body: Document, key: str) -> Document:
        """Submit and wait for `GENERATE_SECONDS`; then the job in the shape of `generate`, maybe unfinished.

        The same key waits for the same job again. A call that is broken off cancels it. Raises `Refused` with
        the job's error if it failed.
        """
        return await self._json(
            "POST",
            "/api/v1/generate",
            json=body,
            params={"cancel_on_disconnect": "true"},
            headers={"Idempotency-Key": key, "Prefer": f"wait={GENERATE_SECONDS}"},
            again=False,
        )

    async def job(self, job_id: str) -> Document:
        return await self._json("GET", f"/api/v1/jobs/{job_id}", again=True)

    async def cancel(self, job_id: str) -> Document:
        return await self._json("POST", f"/api/v1/jobs/{job_id}/cancel", again=True)

    async def jobs(self, *, limit: int, filters: Document) -> list[Document]:
        """The newest `limit` jobs."""
        return await self._pages("/api/v1/jobs", "jobs", limit=limit, filters=filters)

    async def workflows(self) -> list[Document]:
        """Own and published ones, newest first, then those that come with the service."""
        return await self._pages("/api/v1/workflows", "workflows", limit=MOST_WORKFLOWS)

    async def workflow(self, workflow_id: str, version: int | None = None) -> Document:
        path = _workflow(workflow_id) + ("" if version is None else f"/versions/{version}")
        return await self._json("GET", path, again=True)

    async def add_workflow(self, body: Document) -> Document:
        return await self._json("POST", "/api/v1/workflows", json=body, again=False)

    async def replace_workflow(self, workflow_id: str, body: Document) -> Document:
        return await self._json("PUT", _workflow(workflow_id), json=body, again=True)

    async def delete_workflow(self, workflow_id: str) -> None:
        answer = await self._answer("DELETE", _workflow(workflow_id), again=False)
        if answer.status_code >= 400:
            raise _refused(answer)

    async def inspect(self, graph: Document) -> Document:
        """What is in a graph; nothing is stored."""
        return await self._json("POST", "/api/v1/workflows/inspect", json={"workflow": graph}, again=True)

    async def upload(self, file: BinaryIO) -> Document:
        """A picture, sent as it is read; the same content again gives the same upload."""
        return await self._json("POST", "/api/v1/upload", files={"file": ("picture", file)}, again=True)

    async def events(self, job_id: str, *, previews: bool = False) -> AsyncGenerator[Document]:
        """Events until `done`; with `previews`, pictures of the unfinished result in between.

        Broken connections are taken up again where they ended.
        """
        last, broken = "", 0
        while True:
            try:
                async with self._stream(f"/api/v1/jobs/{job_id}/events", last, previews=previews) as source:
                    async for event in source:
                        broken, last = 0, event.id or last
                        if not event.data:  # only `retry:`, or a heartbeat with an id
                            continue
                        document = _event(event.data)
                        yield document
                        if document.get("type") == "done":
                            return
                why = "the stream ended early"
            except (httpx2.TransportError, _Passing) as error:
                why = _why(error)
            broken += 1
            if broken > RECONNECTS:
                raise Unreachable(self.server, why)
            await asyncio.sleep(min(self._pause * 2 ** (broken - 1), 5.0))

    async def download(self, url: str) -> AsyncGenerator[bytes]:
        """A file's bytes; the credential goes to the service alone, never to a store elsewhere."""
        whole = str(httpx2.URL(self.server + "/").join(url))
        headers = self._credential if _origin(whole) == self._origin else {}
        try:
            async with self._http.stream("GET", whole, headers=headers, follow_redirects=True) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise _refused(answer)
                async for chunk in answer.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise Unreachable(_shown(whole), _why(error)) from None

    async def _pages(
        self, path: str, plural: str, *, limit: int, filters: Document | None = None
    ) -> list[Document]:
        found: list[Document] = []
        cursor: str | None = None
        while len(found) < limit:
            params = {**(filters or {}), "limit": min(limit - len(found), 100)}
            if cursor is not None:
                params["cursor"] = cursor
            page = await self._json("GET", path, params=params, again=True)
            found += page[plural]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found[:limit]

    @asynccontextmanager
    async def _stream(self, path: str, last: str, *, previews: bool) -> AsyncIterator[httpx2.EventSource]:
        headers = {**self._credential, **({"Last-Event-ID": last} if last else {})}
        async with self._http.sse(
            self.server + path,
            params={"previews": str(previews).lower()},
            headers=headers,
            timeout=STREAM_TIMEOUT,
            max_event_size=LONGEST_EVENT,
        ) as source:
            answer = source.response
            if answer.status_code != 200:
                await answer.aread()
                if answer.status_code >= 500:
                    raise _Passing(f"HTTP {answer.status_code}")
                raise _refused(answer)
            yield source

    async def _json(self, method: str, path: str, *, again: bool, **options: Any) -> Document:
        answer = await self._answer(method, path, again=again, **options)
        if answer.status_code >= 400:
            raise _refused(answer)
        return _document(answer)

    async def _answer(self, method: str, path: str, *, again: bool, **options: Any) -> httpx2.Response:
        headers = {**self._credential, **options.pop("headers", {})}
        attempt = 1
        while True:
            try:
                return await self._http.request(method, self.server + path, headers=headers, **options)
            except httpx2.ConnectError as error:
                raise Unreachable(self.server, _why(error)) from None
            except httpx2.TransportError as error:
                if not again or attempt == 3:
                    raise Unreachable(self.server, _why(error)) from None
            await asyncio.sleep(self._pause * attempt)
            attempt += 1


class _Passing(Exception):
    """The service cannot answer now, and may soon."""


def _workflow(workflow_id: str) -> str:
    return f"/api/v1/workflows/{quote(workflow_id, safe='')}"


def _event(data: str) -> Document:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Passing("an event that is no JSON object")
    return found


def _document(answer: httpx2.Response) -> Document:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Fault(
            f"{_shown(str(answer.url))} answers, but not as this service does (HTTP {answer.status_code}).",
            "Check --server or COMFY_API_URL.",
            exit_code=ExitCode.UNREACHABLE,
        )
    return found


def _refused(answer: httpx2.Response) -> Fault:
    return refusal(answer.status_code, _document(answer), answer.headers.get("retry-after"))


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Fault(
            f"{url!r} is no address of a service.",
            "Give one such as http://127.0.0.1:8000.",
            exit_code=ExitCode.USAGE,
        )
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def _local(host: str) -> bool:
    """True for this machine, to which no proxy of the environment leads."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    """An address without its query: a signed link is a right to read."""
    return url.partition("?")[0]


def _why(error: Exception) -> str:
    return "no answer in time" if isinstance(error, httpx2.TimeoutException) else in_words(error)
