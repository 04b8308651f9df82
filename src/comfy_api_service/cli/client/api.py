"""The HTTP API as the commands use it: JSON in and out, every refusal and every silence a `Fault`."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

from comfy_api_service import __version__
from comfy_api_service.cli.causes import in_words
from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.domain.errors import TABLE, Code

TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT: Final = httpx2.Timeout(90.0, connect=5.0)
"""A stream says something more often than this, if only a comment."""
GENERATE_SECONDS: Final = 20
"""How long one call of `generate` waits: less than the time-out."""
JOBS_SETTING: Final = "JOBS_ENABLED"
RECONNECTS: Final = 8
LONGEST_EVENT: Final = 16 * 1024**2
Document = Mapping[str, Any]


class Refused(Fault):
    """The service answered with an error; `code` is one of its own list, or "" from something else."""

    def __init__(
        self, status: int, code: str, message: str, details: Document, retry_after: str | None
    ) -> None:
        super().__init__(
            f"{code}: {message}" if code else message,
            _remedy(code, details, retry_after),
            lines=_lines(details),
        )
        self.status = status
        self.code = code


class JobsSwitchedOff(Refused):
    """The service takes no jobs: only `generate` works there."""


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
        """The newest `limit` jobs, page by page."""
        found: list[Document] = []
        cursor: str | None = None
        while len(found) < limit:
            params = {**filters, "limit": min(limit - len(found), 100)}
            if cursor is not None:
                params["cursor"] = cursor
            page = await self._json("GET", "/api/v1/jobs", params=params, again=True)
            found += page["jobs"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found[:limit]

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
    document = _document(answer)
    error = document.get("error")
    if not isinstance(error, dict):
        error = {"message": f"HTTP {answer.status_code}"}
    details = error.get("details") or {}
    kind = JobsSwitchedOff if details.get("setting") == JOBS_SETTING else Refused
    return kind(
        answer.status_code,
        str(error.get("code", "")),
        str(error.get("message", "")),
        details,
        answer.headers.get("retry-after"),
    )


def remedy_of(code: str) -> str:
    """What the documentation says to do about a code; "" for one that this version does not know."""
    return TABLE[Code(code)].remedy if code in Code.__members__ else ""


def _remedy(code: str, details: Document, retry_after: str | None) -> str:
    if details.get("setting") == JOBS_SETTING:
        return f"Use `comfy-api generate`, or start the service with {JOBS_SETTING}=true."
    if code == Code.UNAUTHORIZED:
        return "Give a valid key with --api-key or COMFY_API_KEY."
    if code == Code.VALIDATION_ERROR:
        return "Correct what is named above."
    remedy = remedy_of(code).replace("`Retry-After` says", f"{retry_after} s" if retry_after else "told")
    return (
        remedy if retry_after is None or retry_after in remedy else f"{remedy} Try again in {retry_after} s."
    )


def _lines(details: Document) -> tuple[str, ...]:
    """The single faults of fields, and names that are near a wrong one."""
    errors = details.get("errors")
    lines = [
        f"{one.get('field', '?')}: {one.get('message', '')}"
        for one in (errors if isinstance(errors, list) else [])
        if isinstance(one, dict)
    ]
    nearest = details.get("nearest")
    if isinstance(nearest, list) and nearest:
        lines.append(f"nearest: {', '.join(map(str, nearest))}")
    return tuple(lines)


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
