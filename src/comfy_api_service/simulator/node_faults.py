"""What can go wrong while a prompt runs."""

import asyncio
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from .nodes.base import NodeFailure
from .values import Result

Rewrite = Callable[[dict[str, Any]], dict[str, Any]]

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which "
    "512.00 MiB is free. Of the allocated memory 22.11 GiB is allocated by PyTorch, and 389.25 MiB is "
    "reserved by PyTorch but unallocated."
)


class NodeFaults:
    """Failures by node class, a rewritten graph, a prompt that runs without any sign; off from the start."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[NodeFailure, int | None]] = {}
        self._rewrite: Rewrite | None = None
        self._answers: dict[str, dict[str, Any]] = {}
        self._flood: tuple[str, int] | None = None
        self._steps_left: int | None = None
        self._moving = asyncio.Event()
        self._moving.set()
        self.stalled = asyncio.Event()
        """Set while a prompt waits because of a stall."""

    def fail(self, node_class: str, failure: NodeFailure, times: int | None) -> None:
        self._failures[node_class] = (failure, times)

    def heal(self) -> None:
        self._failures.clear()
        self._rewrite = None
        self._answers.clear()
        self._flood = None
        self.stall(None)

    def before(self, node_class: str) -> None:
        """Raise if a node of this class is to fail now."""
        if node_class not in self._failures:
            return
        failure, times = self._failures[node_class]
        if times is not None:
            if times <= 1:
                del self._failures[node_class]
            else:
                self._failures[node_class] = (failure, times - 1)
        raise NodeFailure(failure.exception_type, str(failure))

    def answer(self, node_class: str, output: dict[str, Any] | None) -> None:
        if output is None:
            self._answers.pop(node_class, None)
        else:
            self._answers[node_class] = output

    def told(self, node_class: str, result: Result) -> Result:
        """What a node of this class says that it gave."""
        output = self._answers.get(node_class)
        return result if output is None else dataclasses.replace(result, ui=output)

    def flood(self, node_class: str, count: int) -> None:
        self._flood = (node_class, count)

    def flooded(self, node_class: str) -> int:
        """How many outputs more a node of this class tells of."""
        return self._flood[1] if self._flood is not None and self._flood[0] == node_class else 0

    def rewrite(self, function: Rewrite | None) -> None:
        self._rewrite = function

    def rewritten(self, graph: dict[str, Any]) -> dict[str, Any]:
        return graph if self._rewrite is None else self._rewrite(copy.deepcopy(graph))

    def stall(self, after: int | None) -> None:
        """No step any more after so many; None ends it."""
        self._steps_left = after
        self.stalled.clear()
        self._moving.set()

    async def unstalled(self) -> None:
        """Wait as long as the prompt is to stand still."""
        if self._steps_left is None:
            return
        if self._steps_left > 0:
            self._steps_left -= 1
            return
        self._moving.clear()
        self.stalled.set()
        await self._moving.wait()
