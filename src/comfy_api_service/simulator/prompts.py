"""The queue and the history of one life of the server: both are gone when it dies."""

import asyncio
import dataclasses
import heapq
from collections.abc import Callable, Iterable
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A prompt that was accepted."""

    number: float
    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    def as_list(self) -> list[Any]:
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]

    @property
    def client_id(self) -> str | None:
        client: str | None = self.extra_data.get("client_id")
        return client


class PromptQueue:
    """Lowest number first. `changed` is called once for each status frame that a real server sends."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._heap: list[tuple[float, int, Item]] = []
        self._count = 0
        self.running: Item | None = None
        self.wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap) + (self.running is not None)

    @property
    def pending(self) -> list[Item]:
        return [item for _, _, item in sorted(self._heap)]

    @property
    def waiting(self) -> int:
        return len(self._heap)

    def put(self, item: Item) -> None:
        self._count += 1
        heapq.heappush(self._heap, (item.number, self._count, item))
        self._changed()
        self.wake.set()

    def take(self) -> Item | None:
        if not self._heap:
            return None
        _, _, self.running = heapq.heappop(self._heap)
        self._changed()
        return self.running

    def release(self) -> None:
        """The running prompt is over; the caller has written the history in the same step."""
        self.running = None
        self._changed()

    def clear(self) -> None:
        self._heap.clear()
        self._changed()

    def delete(self, prompt_id: str) -> bool:
        for index, (_, _, item) in enumerate(self._heap):
            if item.prompt_id == prompt_id:
                if len(self._heap) == 1:
                    self.clear()
                else:
                    self._heap.pop(index)
                    heapq.heapify(self._heap)
                self._changed()
                return True
        return False

    def knows(self, prompt_id: str) -> bool:
        everything: Iterable[Item] = (i for _, _, i in self._heap)
        return any(i.prompt_id == prompt_id for i in everything) or (
            self.running is not None and self.running.prompt_id == prompt_id
        )


class History:
    """What became of the newest prompts, by prompt id, oldest first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[str, dict[str, Any]] = {}

    def add(self, prompt_id: str, entry: dict[str, Any]) -> None:
        if len(self._entries) > self._size:
            self._entries.pop(next(iter(self._entries)))
        self._entries[prompt_id] = entry

    def get(self, prompt_id: str) -> dict[str, Any]:
        return {prompt_id: self._entries[prompt_id]} if prompt_id in self._entries else {}

    def page(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """With `max_items` and no offset the newest ones; the order stays oldest first."""
        names = list(self._entries)
        if offset < 0 and max_items is not None:
            offset = len(names) - max_items
        names = names[max(offset, 0) :]
        if max_items is not None:
            names = names[: max(max_items, 1)]
        return {name: self._entries[name] for name in names}

    def delete(self, prompt_id: str) -> None:
        self._entries.pop(prompt_id, None)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
