"""How far each node of the running prompt is, and the `progress_state` frame that tells it."""

from typing import Any


class Progress:
    """Numbers keep the type they were given: clients see 1.0 of a plain node and 1 of a sampler."""

    def __init__(self, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node: str) -> None:
        self._set(node, 0.0, 1.0, "running")

    def update(self, node: str, value: float, maximum: float) -> None:
        self._set(node, value, maximum, "running")

    def finish(self, node: str) -> None:
        maximum = self._nodes[node]["max"] if node in self._nodes else 1
        self._set(node, maximum, maximum, "finished")

    def frame(self) -> dict[str, Any]:
        return {"prompt_id": self._prompt_id, "nodes": self._nodes}

    def _set(self, node: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node,
            "prompt_id": self._prompt_id,
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }
