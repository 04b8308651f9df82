"""The one file of a `multipart/form-data` body (RFC 7578), as a stream: nothing of it is held but a piece.

Strict where a browser, curl or a client library never goes: one file, no nesting, short headers.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from typing import Final

from starlette.requests import ClientDisconnect, Request

from comfy_api_service.domain.errors import Code, FieldError, Refused, ValidationFailed

OVERHEAD: Final = 16 << 10
"""Bytes that a body may have beside its file."""
_TYPE: Final = re.compile(
    rb'multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))\s*(?:;.*)?',
    re.IGNORECASE,
)
_LONGEST_TYPE: Final = 512
_DISPOSITION: Final = re.compile(
    rb"^content-disposition:[ \t]*form-data[ \t]*;(.*)$", re.IGNORECASE | re.MULTILINE
)
_NAME: Final = re.compile(
    rb'(?:^|;)[ \t]*name[ \t]*=[ \t]*(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))', re.IGNORECASE
)
_FILE: Final = re.compile(rb"(?:^|;)[ \t]*filename\*?[ \t]*=", re.IGNORECASE)
_HEADERS: Final = 8 << 10
_AROUND: Final = 8 << 10
"""Bytes before the first mark and behind the last one: they are passed over."""
_SHOWN: Final = 64


class FilePart:
    """Reads the body of one request; `async for` gives the file's bytes, once.

    Raises `Refused`: UNSUPPORTED_MEDIA_TYPE for another body, BAD_REQUEST for a broken one; `ValidationFailed` if
    there is no file under one of the names, more than one, or another field; `ClientDisconnect`.
    """

    def __init__(self, request: Request, names: Collection[str]) -> None:
        told = request.headers.get("content-type", "").encode("latin-1")
        found = _TYPE.fullmatch(told) if len(told) <= _LONGEST_TYPE else None
        if found is None:
            raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "The body must be sent as multipart/form-data.")
        self._mark = b"\r\n--" + (found[1] or found[2])
        self._names = names
        self._request = request
        self._have = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = False
        passed = 0
        async with aclosing(_pieces(self._request)) as body:
            self._have = b"\r\n"  # the first mark may stand at the very begin
            async for piece in self._until_mark(body):
                passed = _passed(passed, piece)
            while not await self._last(body):
                name, is_file = await self._headers(body)
                if name not in self._names:
                    raise ValidationFailed([FieldError(name[:_SHOWN], "is not a field of this form")])
                if not is_file:
                    raise ValidationFailed([FieldError(name, "must be a file")])
                if seen:
                    raise ValidationFailed([FieldError(name, "must be one file")])
                seen = True
                async for piece in self._until_mark(body):
                    yield piece
            async for piece in body:  # what follows the end, so that the connection can be used again
                passed = _passed(passed, piece)
        if not seen:
            raise ValidationFailed([FieldError(min(self._names), "must be a file")])

    async def _until_mark(self, body: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        """What stands before the next mark, which is consumed."""
        keep = len(self._mark) - 1
        while (at := self._have.find(self._mark)) < 0:
            if len(self._have) > keep:
                yield self._have[:-keep]
                self._have = self._have[-keep:]
            await self._more(body)
        if at:
            yield self._have[:at]
        self._have = self._have[at + len(self._mark) :]

    async def _last(self, body: AsyncGenerator[bytes]) -> bool:
        """Whether the mark just met is the last one; else its line is consumed."""
        while len(self._have) < 2:
            await self._more(body)
        if self._have.startswith(b"--"):
            return True
        while b"\r\n" not in self._have:
            if len(self._have) > _HEADERS:
                raise _broken()
            await self._more(body)
        padding, _, self._have = self._have.partition(b"\r\n")
        if padding.strip(b" \t"):
            raise _broken()
        return False

    async def _headers(self, body: AsyncGenerator[bytes]) -> tuple[str, bool]:
        """The part's name, and whether it is a file."""
        while b"\r\n\r\n" not in self._have:
            if len(self._have) > _HEADERS:
                raise _broken()
            await self._more(body)
        headers, _, self._have = self._have.partition(b"\r\n\r\n")
        if len(headers) > _HEADERS:
            raise _broken()
        told = _DISPOSITION.search(headers.replace(b"\r\n", b"\n"))
        name = None if told is None else _NAME.search(told[1])
        if told is None or name is None:
            raise _broken()
        return (name[1] if name[1] is not None else name[2]).decode(errors="replace"), bool(
            _FILE.search(told[1])
        )

    async def _more(self, body: AsyncGenerator[bytes]) -> None:
        piece = await anext(body, None)
        if piece is None:
            raise _broken()
        self._have += piece


async def _pieces(request: Request) -> AsyncGenerator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if piece := message.get("body", b""):
            yield piece
        if not message.get("more_body", False):
            return


def _passed(before: int, piece: bytes) -> int:
    """Bytes that were passed over. Raises `Refused` if they are too many."""
    if before + len(piece) > _AROUND:
        raise Refused(
            Code.PAYLOAD_TOO_LARGE, "The form has too much around its file.", details={"limit": _AROUND}
        )
    return before + len(piece)


def _broken() -> Refused:
    return Refused(Code.BAD_REQUEST, "The body is not multipart/form-data as it should be.")
