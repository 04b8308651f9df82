"""A file on its way from a server, in pieces as they come."""

import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from comfy_api_service.comfyui.errors import Truncated

PATIENCE: Final = 60.0
"""Seconds that are waited for the pieces of any file, in all."""
SLOWEST: Final = 16 << 10
"""Bytes for which another second is waited: a server that trickles must not hold a job for ever."""


class FileStream:
    """A file's bytes, read once. `length` is in bytes, None if the server did not tell it.

    `media_type` is what the server says; look at the content instead.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, patience: float = PATIENCE) -> None:
        self._response = response
        self._patience = patience
        # Of a compressed body the length says nothing about the file.
        packed = "Content-Encoding" in response.headers
        self.length: int | None = None if packed else response.content_length
        self.media_type: str = response.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come, without copies. Raises Truncated if fewer than `length` do, or too slowly.

        Only the time that the server takes counts, not that of whoever reads.
        """
        received = 0
        waited = 0.0
        pieces = aiter(self._response.content.iter_any())
        while True:
            began = time.monotonic()
            try:
                chunk = await anext(pieces, None)
            except (aiohttp.ClientError, TimeoutError, OSError) as fault:
                raise Truncated(received, self.length) from fault
            if chunk is None:
                break
            waited += time.monotonic() - began
            received += len(chunk)
            if waited > self._patience + received / SLOWEST:
                raise Truncated(received, self.length)
            yield chunk
        if self.length is not None and received < self.length:
            raise Truncated(received, self.length)
