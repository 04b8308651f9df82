"""What clients are told of one run of a prompt, in the order and the words of a real server."""

import time
from typing import Any

from .messages import JPEG, Hub
from .progress import Progress
from .prompts import Item


class Report:
    """Frames go to the client that sent the prompt; without one, the general ones go to everybody."""

    def __init__(self, hub: Hub, item: Item) -> None:
        self._hub = hub
        self._prompt_id = item.prompt_id
        self._client = item.client_id
        self._progress = Progress(item.prompt_id)
        self.messages: list[Any] = []
        """What history keeps."""

    def tell(self, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        """A frame that is also part of the history."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append([event, data])
        if self._client is not None or broadcast:
            self._hub.send(event, data, self._client)

    def started(self, node: str) -> None:
        self._progress.start(node)
        self._send_progress()

    def executing(self, node: str) -> None:
        if self._client is not None:
            about = {"node": node, "display_node": node, "prompt_id": self._prompt_id}
            self._hub.send("executing", about, self._client)

    def executed(self, node: str, ui: dict[str, Any] | None) -> None:
        if self._client is not None:
            about = {"node": node, "display_node": node, "output": ui, "prompt_id": self._prompt_id}
            self._hub.send("executed", about, self._client)

    def finished(self, node: str) -> None:
        self._progress.finish(node)
        self._send_progress()

    def step(self, node: str, value: int, maximum: int, picture: bytes | None, kind: int = JPEG) -> None:
        """One step; its picture, a preview or a result for the socket, goes before `progress` in its newer form,
        and after it in the older.
        """
        self._progress.update(node, value, maximum)
        self._send_progress()
        modern = self._hub.supports(self._client, "supports_preview_metadata")
        if picture is not None and modern:
            about = {
                "node_id": node,
                "prompt_id": self._prompt_id,
                "display_node_id": node,
                "parent_node_id": None,
                "real_node_id": node,
            }
            self._hub.send_preview(kind, picture, about, self._client)
        told = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node}
        self._hub.send("progress", told, self._client)
        if picture is not None and not modern:
            self._hub.send_picture(kind, picture, self._client)

    def _send_progress(self) -> None:
        self._hub.send("progress_state", self._progress.frame(), self._client)
