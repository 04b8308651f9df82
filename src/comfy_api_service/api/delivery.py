"""Bytes of files: ranges, conditions, names. A stream that breaks is cut, never ended as if it were whole."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from comfy_api_service.api.errors import error_answer
from comfy_api_service.domain.errors import Code, Refused
from comfy_api_service.services.views import Delivery
from comfy_api_service.storage.links import disposition

_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})", re.IGNORECASE)


async def deliver(request: Request, delivery: Delivery, extra: Mapping[str, str] | None = None) -> Response:
    """200 or 206, 304 if the caller has it already, 416 for a range that lies outside."""
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": disposition(delivery.media_type, delivery.filename),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Type": delivery.media_type,
        "ETag": delivery.etag,
        **(extra or {}),
    }
    if _matches(request.headers.get("if-none-match"), delivery.etag):
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    start, end = 0, delivery.size
    status = 200
    wanted = _range(request, delivery)
    if wanted is not None:
        start, end = wanted
        if start >= end:
            return _outside(request, delivery.size)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{delivery.size}"
    headers["Content-Length"] = str(end - start)
    if request.scope.get("comfy_method") == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(await _begun(delivery.chunks(start, end)), status, headers)


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in ("*", etag) for tag in header.split(","))


def _range(request: Request, delivery: Delivery) -> tuple[int, int] | None:
    """Half-open; None for the whole file, which also answers what is not one plain range of bytes."""
    header = request.headers.get("range")
    if header is None or request.headers.get("if-range", delivery.etag) != delivery.etag:
        return None
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last = found[1], found[2]
    if not first:
        if not last:
            return None
        return max(delivery.size - int(last), 0) if int(last) else delivery.size, delivery.size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, delivery.size) if last else delivery.size


def _outside(request: Request, size: int) -> Response:
    error = Refused(Code.RANGE_NOT_SATISFIABLE, "The range lies outside of the file.", details={"size": size})
    return error_answer(error, request.scope, {"Content-Range": f"bytes */{size}"})


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """With the first chunk read: a file that is gone is an error's answer, not a broken stream."""
    first = await anext(chunks, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return whole()
