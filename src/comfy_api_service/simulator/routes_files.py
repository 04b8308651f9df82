"""Uploads and `/view`."""

import asyncio
import io
import json
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

from .answers import FileAnswer, as_json, trouble

if TYPE_CHECKING:
    from .server import Simulator

MEDIA_TYPES = {".webp": "image/webp", ".webm": "video/webm", ".mp4": "video/mp4", ".png": "image/png"}
DOWNLOADED = frozenset(
    {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
)


class FileRoutes:
    """Files go through threads, so that the event loop answers meanwhile."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self._files = simulator.files
        fixed = simulator.settings.fixed_output
        self._fixed = None if fixed is None else self._files.fix(fixed)
        """The file that stands for all that are only pretended."""

    def routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("POST", "/upload/image", self.upload_image),
            ("POST", "/upload/mask", self.upload_mask),
            ("GET", "/view", self.view),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        try:
            post = await request.post()
        except ValueError:
            return trouble()
        return await self._store(post, None)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """A picture whose transparency becomes that of a picture that is there already."""
        try:
            post = await request.post()
            reference = json.loads(str(post["original_ref"]))
            name = str(reference["filename"])
        except (ValueError, KeyError, TypeError):
            return trouble()
        if not name or name.startswith("/") or ".." in name:
            return web.Response(status=400)
        base = self._files.directory(str(reference.get("type", "output")))
        if base is None:
            return web.Response(status=400)
        original = _inside(base, f"{reference.get('subfolder', '')}/{name}")
        if original is None:
            return web.Response(status=403)
        return await self._store(post, original)

    async def _store(self, post: Any, original: Path | None) -> web.Response:
        field = post.get("image")
        if not isinstance(field, web.FileField) or not field.filename:
            return web.Response(status=400)
        kind = str(post.get("type") or "input")
        if self._files.directory(kind) is None:
            return trouble()
        subfolder = str(post.get("subfolder", ""))
        overwrite = post.get("overwrite") in {"true", "1"}
        filename = field.filename

        def work() -> str | None:
            content = field.file.read()
            if original is not None and original.is_file():
                content = _with_alpha(original, content)
            return self._files.store_upload(kind, subfolder, filename, content, overwrite=overwrite)

        try:
            name = await asyncio.to_thread(work)
        except OSError:
            return trouble()
        if name is None:
            return web.Response(status=400)
        await self._simulator.inputs_changed()
        return as_json({"name": name, "subfolder": subfolder, "type": kind})

    async def view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        faults = self._simulator.faults
        if faults.endless is not None:
            return await _endless(request, *faults.endless)
        if faults.content is not None:
            return web.Response(body=faults.content)
        name, base = query["filename"], self._files.directory(query.get("type", "output"))
        for kind in ("input", "output", "temp"):
            if name.endswith(f"[{kind}]"):
                name, base = name[: -len(kind) - 3], self._files.directory(kind)
        if not name or name.startswith("/") or ".." in name or base is None:
            return web.Response(status=400)
        folder = _inside(base, query.get("subfolder", ""))
        if folder is None:
            return web.Response(status=403)
        name = Path(name).name
        path = folder / name
        if self._fixed is not None and self._files.is_pretended(name, query.get("subfolder", ""), base.name):
            path = self._fixed
        if not await asyncio.to_thread(path.is_file):
            return web.Response(status=404)
        return await self._shown(name, path, query)

    async def _shown(self, name: str, path: Path, query: Any) -> web.StreamResponse:
        headers = {"Content-Disposition": f'filename="{name}"'}
        channel = query.get("channel", "rgba")
        try:
            if "preview" in query:
                form, body = await asyncio.to_thread(_preview, path, query["preview"], channel)
                return web.Response(body=body, content_type=f"image/{form}", headers=headers)
            if channel in {"rgb", "a"}:
                body = await asyncio.to_thread(_channel, path, channel)
                return web.Response(body=body, content_type="image/png", headers=headers)
        except OSError:
            return trouble()
        kind = MEDIA_TYPES.get(Path(name).suffix.lower()) or mimetypes.guess_type(name)[0]
        kind = kind or "application/octet-stream"
        kind = "application/octet-stream" if kind in DOWNLOADED else kind
        return FileAnswer(path, {**headers, "Content-Type": kind})


async def _endless(request: web.Request, begin: bytes, pause: float) -> web.StreamResponse:
    """Zeros behind the begin, until whoever asked has had enough; one at a time with a pause."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(begin)
    piece = bytes(1 if pause else 1 << 20)
    while True:
        await response.write(piece)
        await asyncio.sleep(pause)


def _inside(base: Path, relative: str) -> Path | None:
    """The path below the base, or None if it would lead out of it. Touches no disk."""
    path = Path(os.path.normpath(base / relative.lstrip("/")))
    return path if path.is_relative_to(base) else None


def _preview(path: Path, wanted: str, channel: str) -> tuple[str, bytes]:
    form, _, quality = wanted.rpartition(";")
    form = form or wanted
    if form not in {"webp", "jpeg"} or "a" in channel.replace("rgba", ""):
        form = "webp"
    out = io.BytesIO()
    with Image.open(path) as picture:
        shown = picture.convert("RGB") if form == "jpeg" or channel == "rgb" else picture
        shown.save(out, form.upper(), quality=int(quality) if quality.isdigit() else 90)
    return form, out.getvalue()


def _channel(path: Path, channel: str) -> bytes:
    out = io.BytesIO()
    with Image.open(path) as picture:
        if channel == "rgb":
            picture.convert("RGB").save(out, "PNG")
        else:
            shown = Image.new("RGBA", picture.size)
            shown.putalpha(picture.convert("RGBA").getchannel("A"))
            shown.save(out, "PNG")
    return out.getvalue()


def _with_alpha(original: Path, mask: bytes) -> bytes:
    out = io.BytesIO()
    with Image.open(original) as picture, Image.open(io.BytesIO(mask)) as alpha:
        masked = picture.convert("RGBA")
        masked.putalpha(alpha.convert("RGBA").getchannel("A").resize(masked.size))
        masked.save(out, "PNG", compress_level=4)
    return out.getvalue()
