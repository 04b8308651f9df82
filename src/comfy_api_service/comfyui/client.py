"""The HTTP side of one ComfyUI server: submit, look, stop, fetch, upload.

Prompts are always sent with their id and their session's, and stopped by their id alone: an interrupt without
one stops whatever runs, whoever's it is.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeVar

import aiohttp
import orjson

from comfy_api_service.comfyui import views
from comfy_api_service.comfyui.errors import (
    AnswerInvalid,
    BadAnswer,
    DuplicatePrompt,
    OutputInvalid,
    OutputMissing,
    PromptRefused,
)
from comfy_api_service.comfyui.files import FileRef, file_ref, is_safe
from comfy_api_service.comfyui.refusals import refusal
from comfy_api_service.comfyui.streams import FileStream
from comfy_api_service.comfyui.transport import Answer, Observer, Transport, unexpected
from comfy_api_service.comfyui.views import HistoryEntry, QueueView, SystemStats
from comfy_api_service.comfyui.wire import Malformed, identifier, mapping, number
from comfy_api_service.domain.graph import Graph

T = TypeVar("T")

INVENTORY_TIME: Final = 60.0
"""Seconds for `/object_info`: a server reads its model folders first, and custom nodes run code."""
_JSON: Final = {"Content-Type": "application/json"}


class ComfyClient:
    """One server. All methods raise Unreachable, NoAnswer or BadAnswer; others are named where they are."""

    def __init__(
        self,
        url: str,
        http: aiohttp.ClientSession,
        *,
        observer: Observer | None = None,
        before_change: Callable[[], Awaitable[None]] | None = None,
        connect_timeout: float = 3.0,
        read_timeout: float = 10.0,
        make_transport: Callable[..., Transport] = Transport,
    ) -> None:
        """Times are seconds; `http` is the process's one session (`transport.open_http`), not closed here.

        `before_change` is awaited before each request that changes anything on the server.
        """
        self._transport = make_transport(
            url, http, observer=observer, connect_timeout=connect_timeout, read_timeout=read_timeout
        )
        self._before_change = before_change
        self._cancels: bool | None = None
        self._version: str | None = None

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def connect_timeout(self) -> float:
        return self._transport.connect_timeout

    async def submit(
        self, *, prompt_id: str, client_id: str, graph: Graph | None = None, body: bytes | None = None
    ) -> int:
        """Puts a prompt into the queue and gives its number, which orders the queue.

        `body` is the graph (not the whole request) as JSON, if it is written already; else `graph` is
        written. Raises PromptRefused, DuplicatePrompt. If it was `partly` refused, or the error says
        `maybe_done`, the prompt may be in the queue.
        """
        if not identifier(prompt_id) or not client_id:
            raise ValueError("a prompt needs its id and its session's")
        if body is None and graph is None:
            raise ValueError("a prompt needs its graph")
        answer = await self._change(
            "/prompt", "/prompt", data=_request(prompt_id, client_id, graph, body), headers=_JSON
        )
        if answer.status == 409:
            raise DuplicatePrompt("The backend has a prompt with this id.")
        if answer.status == 413:
            raise PromptRefused("request_too_large", "The graph is larger than the backend accepts.")
        content = await answer.json() if answer.status in {200, 400} else None
        if answer.status == 400 and isinstance(content, dict):
            raise refusal(content)
        if answer.status != 200 or not isinstance(content, dict):
            raise unexpected(answer.status)
        if content.get("node_errors"):
            raise refusal(content, partly=True)
        place = number(content.get("number"))
        if content.get("prompt_id") != prompt_id or place is None:
            raise BadAnswer("The backend answered for another prompt.", status=answer.status)
        return int(place)

    async def queue(self) -> QueueView:
        """What runs and what waits, of all clients. Ask this first, then `history`."""
        return _read(views.queue_view, await self._get("/queue", "/queue"))

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """How the prompt ended; None if the server does not know, pending ones included."""
        _require(prompt_id)
        body = await self._get("/history/{id}", f"/history/{prompt_id}")
        return _read(lambda found: views.history_entry(prompt_id, found), body)

    async def delete_pending(self, prompt_ids: Sequence[str]) -> None:
        """Takes prompts out of the queue if they wait there; those that run, run on."""
        if prompt_ids:
            _expect_ok(await self._post("/queue", {"delete": [_require(p) for p in prompt_ids]}))

    async def interrupt(self, prompt_id: str) -> None:
        """Stops the prompt if it is the one that runs, at its next step: ask `history` for the end.

        Raises ValueError for an empty id.
        """
        _expect_ok(await self._post("/interrupt", {"prompt_id": _require(prompt_id)}))

    async def cancel(self, prompt_id: str) -> bool:
        """Stops the prompt wherever it is, in one step: True if the server can do that (from about 0.26).

        False: it cannot, use `delete_pending` and `interrupt`; remembered until its version changes.
        """
        _require(prompt_id)
        if self._cancels is False:
            return False
        path = f"/api/jobs/{prompt_id}/cancel"
        answer = await self._change("/api/jobs/{id}/cancel", path)
        # Servers that have the path answer 200 for prompts that they do not know, too.
        self._cancels = answer.status not in {404, 405}
        if self._cancels:
            _expect_ok(answer)
        return self._cancels

    async def object_info(self) -> Mapping[str, Any]:
        """All node classes, 0.1 to 64 MB; parsed in a thread if it is large."""
        found = await self._get("/object_info", "/object_info", total=INVENTORY_TIME)
        if not isinstance(found, dict):
            raise BadAnswer("The backend's inventory is none.", status=200)
        return found

    async def system_stats(self) -> SystemStats:
        stats = _read(views.system_stats, await self._get("/system_stats", "/system_stats"))
        if stats.version != self._version:
            self._version, self._cancels = stats.version, None
        return stats

    async def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Asks the server to free memory; it does when it next has nothing to run."""
        asked = {"unload_models": unload_models, "free_memory": free_memory}
        _expect_ok(await self._post("/free", asked))

    @asynccontextmanager
    async def view(self, ref: FileRef) -> AsyncIterator[FileStream]:
        """A file, as a stream that is read inside the block.

        Raises OutputMissing, OutputInvalid; the stream raises Truncated.
        """
        if not is_safe(ref):
            raise OutputInvalid("A file reference leads out of the output folders.")
        params = {"filename": ref.filename, "subfolder": ref.subfolder, "type": ref.type}
        async with self._transport.open("GET", "/view", "/view", params=params) as response:
            if response.status == 404:
                raise OutputMissing("The backend does not have the file.")
            if response.status != 200:
                raise unexpected(response.status)
            yield FileStream(response)

    async def upload_image(
        self,
        name: str,
        data: bytes | AsyncIterable[bytes],
        *,
        subfolder: str = "",
        folder: Literal["input", "temp"] = "input",
    ) -> FileRef:
        """Stores an input file and says under which name: the server changes it if another file has it.

        The same content under the same name is stored once. Raises ValueError for a name with a path in it; what
        `data` raises passes through.
        """
        if file_ref(name, subfolder, folder) is None:
            raise ValueError("not a plain file name or folder")
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        form.add_field("subfolder", subfolder)
        form.add_field("type", folder)
        answer = await self._change("/upload/image", "/upload/image", data=form, total=INVENTORY_TIME)
        _expect_ok(answer)
        stored = mapping(await answer.json())
        ref = file_ref(stored.get("name"), stored.get("subfolder"), stored.get("type"))
        if ref is None or ref.type != folder:
            raise BadAnswer("The backend stored the upload nowhere.", status=answer.status)
        return ref

    async def open_socket(
        self, client_id: str, *, heartbeat: float, max_frame: int
    ) -> aiohttp.ClientWebSocketResponse:
        """The event socket, uncompressed. Raises what aiohttp raises, and TimeoutError."""
        return await self._transport.http.ws_connect(
            f"{self.url}/ws",
            params={"clientId": client_id},
            heartbeat=heartbeat,
            autoping=True,
            max_msg_size=max_frame,
            compress=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
        )

    async def _get(self, route: str, path: str, *, total: float | None = None) -> Any:
        answer = await self._transport.request("GET", route, path, total=total)
        _expect_ok(answer)
        return await answer.json()

    async def _post(self, path: str, content: Mapping[str, Any]) -> Answer:
        return await self._change(path, path, data=orjson.dumps(content), headers=_JSON)

    async def _change(self, route: str, path: str, **options: Any) -> Answer:
        """A POST: whoever may change nothing on the server now waits."""
        if self._before_change is not None:
            await self._before_change()
        return await self._transport.request("POST", route, path, **options)


def _request(prompt_id: str, client_id: str, graph: Graph | None, body: bytes | None) -> bytes:
    """`number` and `front` are never sent: they reorder the queue for everybody."""
    content: dict[str, Any] = {
        "prompt": graph if body is None else orjson.Fragment(body),
        "client_id": client_id,
        "prompt_id": prompt_id,
        "extra_data": {},
    }
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits: legal JSON, for ComfyUI to refuse.
        return json.dumps(content).encode()


def _require(prompt_id: str) -> str:
    """The id. Raises ValueError if it is none that could stand in a path."""
    if identifier(prompt_id) is None or not prompt_id.replace("-", "").replace("_", "").isalnum():
        raise ValueError("not a prompt id")
    return prompt_id


def _expect_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise unexpected(answer.status)


def _read(reader: Callable[[Any], T], body: Any) -> T:
    try:
        return reader(body)
    except Malformed as fault:
        raise AnswerInvalid("The backend's answer is not what the protocol says.", status=200) from fault
