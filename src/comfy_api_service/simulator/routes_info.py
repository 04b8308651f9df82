"""What the server tells about itself, and the socket."""

import json
import sys
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from .answers import as_json, raw_json
from .messages import Client

if TYPE_CHECKING:
    from .server import Simulator

VERSIONS = {
    "0.3.64": {
        "os": "posix",
        "comfyui_version": "0.3.64",
        "required_frontend_version": "1.27.10",
        "installed_templates_version": "0.1.95",
        "required_templates_version": "0.1.95",
    },
    "0.8.0": {
        "os": "linux",
        "comfyui_version": "0.8.0",
        "required_frontend_version": "1.35.9",
        "installed_templates_version": "0.7.67",
        "required_templates_version": "0.7.67",
    },
}
NEWER_VERSION = "0.28.0"
PAGE = (
    "<!doctype html><title>Simulated ComfyUI</title><p>This is a simulated ComfyUI server: no GPU, no models."
)


class InfoRoutes:
    """Everything here is cheap: the big answer is kept as bytes."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator
        self._settings = simulator.settings

    def routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/", self.page),
            ("GET", "/ws", self.socket),
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/features", self.features),
            ("GET", "/embeddings", self.embeddings),
            ("GET", "/models", self.model_folders),
            ("GET", "/models/{folder}", self.models),
            ("GET", "/object_info", self.object_info),
            ("GET", "/object_info/{node_class}", self.object_info_one),
        ]

    async def page(self, _request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def system_stats(self, _request: web.Request) -> web.Response:
        settings, used = self._settings, self._simulator.engine.shelf.memory_used
        versions = VERSIONS[settings.protocol]
        system = {
            "os": versions["os"],
            "ram_total": settings.ram_total,
            "ram_free": int(settings.ram_total * 0.8),
            **{k: v for k, v in versions.items() if k != "os"},
            "python_version": sys.version,
            "pytorch_version": "2.9.0+simulated",
            "embedded_python": False,
            "argv": ["main.py"],
        }
        if settings.newer:
            system["comfyui_version"] = NEWER_VERSION
        free = max(0, settings.vram_total - used)
        device = {
            "name": settings.device_name,
            "type": settings.device_type,
            "index": settings.device_index,
            "vram_total": settings.vram_total,
            "vram_free": free,
            "torch_vram_total": settings.vram_total if settings.device_type == "cpu" else used,
            "torch_vram_free": free if settings.device_type == "cpu" else 0,
        }
        return as_json({"system": system, "devices": [device]})

    def _features(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "supports_preview_metadata": True,
            "max_upload_size": self._settings.max_upload_size,
        }
        if self._settings.protocol != "0.3.64":
            found["extension"] = {"manager": {"supports_v4": True}}
        return found

    async def features(self, _request: web.Request) -> web.Response:
        return as_json(self._features())

    async def embeddings(self, _request: web.Request) -> web.Response:
        names = self._simulator.engine.inventory.models("embeddings")
        return as_json([name.rpartition(".")[0] or name for name in names])

    async def model_folders(self, _request: web.Request) -> web.Response:
        return as_json(list(self._simulator.engine.inventory.folders))

    async def models(self, request: web.Request) -> web.Response:
        inventory, folder = self._simulator.engine.inventory, request.match_info["folder"]
        if folder not in inventory.folders:
            return web.Response(status=404)
        return as_json(inventory.models(folder))

    async def object_info(self, _request: web.Request) -> web.Response:
        return raw_json(self._simulator.engine.inventory.object_info())

    async def object_info_one(self, request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        node = self._simulator.engine.inventory.classes.get(name)
        return as_json({} if node is None else {name: node.info})

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        engine = self._simulator.engine
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        sid = request.query.get("clientId", "")
        if sid:
            engine.hub.clients.pop(sid, None)
        else:
            sid = uuid.uuid4().hex
        client = engine.hub.join(sid, socket)
        try:
            await engine.hub.send_now(sid, "status", {"status": engine.queue_info(), "sid": sid})
            if engine.life.client_id == sid and engine.life.current_node is not None:
                await engine.hub.send_now(sid, "executing", {"node": engine.life.current_node})
            first = True
            async for message in socket:
                await engine.life.pause()
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    if first:
                        await self._first_message(client, sid, message.data)
                    first = False
        except ConnectionError:
            pass
        finally:
            engine.hub.leave(sid, socket)
        return socket

    async def _first_message(self, client: Client, sid: str, text: str) -> None:
        try:
            message = json.loads(text)
            if message.get("type") != "feature_flags":
                return
            client.features = dict(message.get("data", {}))
        except (ValueError, AttributeError, TypeError):
            return
        await self._simulator.engine.hub.send_now(sid, "feature_flags", self._features())
