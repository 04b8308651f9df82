"""A store where traces are on: spans for what is written and read, without keys."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from comfy_api_service.storage.base import Listed, ObjectReader, Storage, Stored
from comfy_api_service.telemetry.tracing import CLIENT, INTERNAL, Tracing


class TracedStorage:
    def __init__(self, tracing: Tracing, inner: Storage, *, remote: bool) -> None:
        self._tracing = tracing
        self._inner = inner
        self._kind = CLIENT if remote else INTERNAL

    async def put(self, key: str, body: AsyncIterable[bytes], *, media_type: str) -> Stored:
        if not self._tracing.recorded():
            return await self._inner.put(key, body, media_type=media_type)
        with self._tracing.span("storage put", kind=self._kind) as span:
            stored = await self._inner.put(key, body, media_type=media_type)
            span.set_attribute("comfyui.storage.bytes", stored.bytes)
            return stored

    def open(self, key: str) -> AbstractAsyncContextManager[ObjectReader]:
        return self._read(key) if self._tracing.recorded() else self._inner.open(key)

    @asynccontextmanager
    async def _read(self, key: str) -> AsyncIterator[ObjectReader]:
        with self._tracing.span("storage get", kind=self._kind) as span:
            async with self._inner.open(key) as reader:
                span.set_attribute("comfyui.storage.bytes", reader.size)
                yield reader

    async def expect(self, prefix: str) -> None:
        await self._inner.expect(prefix)

    async def forget(self, prefix: str) -> None:
        await self._inner.forget(prefix)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._inner.delete(keys)

    def link(self, key: str, *, expires_at: float, media_type: str, filename: str) -> str:
        return self._inner.link(key, expires_at=expires_at, media_type=media_type, filename=filename)

    def list_prefix(self, prefix: str) -> AsyncIterator[Listed]:
        return self._inner.list_prefix(prefix)

    async def clear_unfinished(self, before: float) -> int:
        return await self._inner.clear_unfinished(before)

    async def check(self) -> None:
        await self._inner.check()
