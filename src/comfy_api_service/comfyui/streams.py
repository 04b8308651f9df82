"""A file on its way from a server, in pieces as they come."""

from collections.abc import AsyncIterator

import aiohttp

from comfy_api_service.comfyui.errors import Truncated


class FileStream:
    """A file's bytes, read once. `length` is in bytes, None if the server did not tell it.

    `media_type` is what the server says; look at the content instead.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        # Of a compressed body the length says nothing about the file.
        packed = "Content-Encoding" in response.headers
        self.length: int | None = None if packed else response.content_length
        self.media_type: str = response.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come, without copies. Raises Truncated if fewer than `length` do."""
        received = 0
        try:
            async for chunk in self._response.content.iter_any():
                received += len(chunk)
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise Truncated(received, self.length) from fault
        if self.length is not None and received < self.length:
            raise Truncated(received, self.length)
