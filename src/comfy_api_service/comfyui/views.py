"""What a server answers to questions, as frozen values: queue, history, system."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfy_api_service.comfyui import wire
from comfy_api_service.comfyui.failure import failed
from comfy_api_service.comfyui.files import MAX_FILES, given
from comfy_api_service.comfyui.message_types import Failed, Output
from comfy_api_service.comfyui.messages import MAX_NODES, cached_nodes
from comfy_api_service.comfyui.wire import Malformed


@dataclass(frozen=True, slots=True)
class QueueItem:
    """A prompt in the queue. `number` orders it; negative ones were put in front."""

    number: float
    prompt_id: str
    client_id: str | None


@dataclass(frozen=True, slots=True)
class QueueView:
    """What runs and what waits; `len` counts both."""

    running: tuple[QueueItem, ...]
    pending: tuple[QueueItem, ...]

    def __len__(self) -> int:
        return len(self.running) + len(self.pending)

    def __contains__(self, prompt_id: object) -> bool:
        return any(item.prompt_id == prompt_id for item in (*self.running, *self.pending))


class Outcome(StrEnum):
    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """How a prompt ended. Success is no proof of all outputs: compare `promised` with the graph's.

    `promised` are the output nodes that the server executed (`prompt[4]`). Times are seconds since the
    epoch by the server's clock. `error` is there for the outcome `error` alone.
    """

    prompt_id: str
    client_id: str | None
    outcome: Outcome
    graph: Mapping[str, Any]
    """What the server says that it ran."""
    outputs: Mapping[str, Output]
    promised: tuple[str, ...]
    error: Failed | None
    interrupted_at: str | None
    """The node at which the prompt was interrupted."""
    cached: tuple[str, ...]
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Device:
    """A device; sizes are bytes, 0 if unknown."""

    name: str
    type: str
    vram_total: int
    vram_free: int


@dataclass(frozen=True, slots=True)
class SystemStats:
    """What the server is; sizes are bytes, 0 if unknown."""

    version: str
    python: str
    ram_total: int
    ram_free: int
    devices: tuple[Device, ...]


def queue_view(body: object) -> QueueView:
    """Of `GET /queue`. Raises Malformed: an entry that cannot be read must not look like an absent prompt."""
    content = wire.mapping(body)
    running, pending = content.get("queue_running"), content.get("queue_pending")
    if not isinstance(running, list) or not isinstance(pending, list):
        raise Malformed("no queue")
    return QueueView(tuple(map(_item, running)), tuple(map(_item, pending)))


def _item(raw: object) -> QueueItem:
    if not isinstance(raw, list) or len(raw) < 2:
        raise Malformed("no item of a queue")
    # Other people's prompts may have ids of any form: they count, and match none of ours.
    return QueueItem(wire.number(raw[0]) or 0, wire.text(raw[1], 256), _client(raw))


def _client(raw: list[Any]) -> str | None:
    extra = wire.mapping(raw[3]) if len(raw) > 3 else {}
    return wire.identifier(extra.get("client_id"), 256)


def history_entry(prompt_id: str, body: object) -> HistoryEntry | None:
    """Of `GET /history/{id}`: the entry, or None if the server knows none. Raises Malformed."""
    if not isinstance(body, dict):
        raise Malformed("no history")
    if prompt_id not in body:
        if body:
            raise Malformed("another prompt's history")
        return None
    entry = wire.mapping(body[prompt_id])
    prompt = entry.get("prompt")
    status = wire.mapping(entry.get("status"))
    if not isinstance(prompt, list) or len(prompt) < 5 or not isinstance(prompt[4], list):
        raise Malformed("no prompt")
    told = dict(_told(status.get("messages")))
    error = told.get("execution_error")
    interruption = told.get("execution_interrupted")
    if interruption is not None:
        outcome = Outcome.INTERRUPTED
    elif status.get("status_str") == "success" and error is None:
        outcome = Outcome.SUCCESS
    elif status.get("status_str") in ("success", "error"):
        outcome = Outcome.ERROR
    else:
        # Servers before 0.2 wrote no status; nothing proves how it ended.
        raise Malformed("no status")
    ends = (told.get(f"execution_{word}") for word in ("success", "error", "interrupted"))
    return HistoryEntry(
        prompt_id=prompt_id,
        client_id=_client(prompt),
        outcome=outcome,
        graph=wire.mapping(prompt[2]),
        outputs=_outputs(prompt_id, entry, wire.mapping(prompt[2])),
        promised=tuple(n for n in map(wire.node_id, prompt[4][:MAX_NODES]) if n is not None),
        error=failed(prompt_id, error or {}) if outcome is Outcome.ERROR else None,
        interrupted_at=wire.node_id(wire.mapping(interruption).get("node_id")),
        cached=cached_nodes(told.get("execution_cached", {"nodes": []})),
        started_at=wire.seconds(wire.mapping(told.get("execution_start")).get("timestamp")),
        ended_at=next((wire.seconds(end.get("timestamp")) for end in ends if end is not None), None),
    )


def _told(messages: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The messages of a history entry, as (type, data)."""
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[0], str):
            yield message[0], wire.mapping(message[1])


def _outputs(prompt_id: str, entry: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, Output]:
    """By node of the graph that was sent: nodes that another one grew are added to it, as on the socket.

    Of a node answered from cache, `meta` names the one that ran for it, by its id in that other prompt.
    """
    meta = wire.mapping(entry.get("meta"))
    outputs: dict[str, Output] = {}
    for key, raw in list(wire.mapping(entry.get("outputs")).items())[:MAX_NODES]:
        grown_by = None if key in graph else wire.mapping(meta.get(key)).get("display_node")
        shown = wire.node_id(grown_by) or wire.node_id(key)
        if shown is None:
            raise Malformed("no node")
        found = given(raw)
        old = outputs.get(shown, Output(prompt_id, shown, (), (), 0))
        files = old.files + found.files
        outputs[shown] = Output(
            prompt_id,
            shown,
            files[:MAX_FILES],
            old.values + found.values,
            old.invalid + found.invalid + max(0, len(files) - MAX_FILES),
        )
    return outputs


def system_stats(body: object) -> SystemStats:
    """Of `GET /system_stats`. Raises Malformed."""
    content = wire.mapping(body)
    system, devices = content.get("system"), content.get("devices")
    if not isinstance(system, dict) or not isinstance(devices, list):
        raise Malformed("no system")
    return SystemStats(
        version=wire.text(system.get("comfyui_version"), 64),
        python=wire.text(system.get("python_version"), 64).partition(" ")[0],
        ram_total=wire.count(system.get("ram_total")) or 0,
        ram_free=wire.count(system.get("ram_free")) or 0,
        devices=tuple(_device(wire.mapping(device)) for device in devices[:64]),
    )


def _device(device: Mapping[str, Any]) -> Device:
    return Device(
        name=wire.text(device.get("name"), 128),
        type=wire.text(device.get("type"), 32),
        vram_total=wire.count(device.get("vram_total")) or 0,
        vram_free=wire.count(device.get("vram_free")) or 0,
    )
