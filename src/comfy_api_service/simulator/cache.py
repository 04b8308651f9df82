"""What the worker keeps of the previous prompt: the classic cache of ComfyUI, and its node objects."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from .values import Result


@dataclasses.dataclass(frozen=True, slots=True)
class Cache:
    results: dict[str, Result] = dataclasses.field(default_factory=dict)
    """By signature."""
    _suffixes: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def keep_for(self, graph: Mapping[str, Any], signatures: Mapping[str, str]) -> None:
        """Drop all that is of no use for a prompt with this graph and these signatures of its nodes."""
        for signature in self.results.keys() - signatures.values():
            del self.results[signature]
        for node in self._suffixes.keys() - {(n, content["class_type"]) for n, content in graph.items()}:
            del self._suffixes[node]

    def clear(self) -> None:
        self.results.clear()
        self._suffixes.clear()

    def temp_suffix(self, node: str, class_type: str) -> str:
        """Random letters in the names of a node's temporary pictures: others for each node object, which lives
        as long as every prompt has a node of this id and class.
        """
        letters = "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5))  # noqa: S311
        return self._suffixes.setdefault((node, class_type), f"_temp_{letters}")
