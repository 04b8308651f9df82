"""Order of execution and cache signatures of a prompt's graph. Pure."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]


class NodeNotFound(Exception):
    """A link to a node that is not in the graph, in an input that its class does not have: no validation sees it."""


def is_link(value: Any) -> bool:
    """Whether an input's value names another node's output: `[node_id, slot]`."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


class Schedule:
    """The nodes still to run, and which is next.

    Nodes already cached are no part of it, unless they are outputs that were asked for. Among the ready ones
    an output node goes first, then what an output node waits for, then what is two steps away, then the one
    found first: the order in which a user sees most soonest, and the one that clients of ComfyUI see.
    """

    def __init__(
        self, graph: Graph, is_output: Callable[[str], bool], is_cached: Callable[[str], bool]
    ) -> None:
        self._graph = graph
        self._is_output = is_output
        self._is_cached = is_cached
        self._waits_for: dict[str, set[str]] = {}
        self._blocks: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._waits_for)

    @property
    def left(self) -> int:
        """How many nodes are still to run."""
        return len(self._waits_for)

    def add(self, output: str) -> None:
        """Plan an output node and all that it needs."""
        stack, links = [output], list[tuple[str, str]]()
        while stack:
            node = stack.pop()
            if node in self._waits_for:
                continue
            if node not in self._graph:
                raise NodeNotFound(node)
            self._waits_for[node] = set()
            self._blocks[node] = []
            for value in self._graph[node].get("inputs", {}).values():
                if is_link(value) and not self._is_cached(value[0]):
                    stack.append(value[0])
                    links.append((value[0], node))
        for source, target in links:
            if source not in self._waits_for[target]:
                self._waits_for[target].add(source)
                self._blocks[source].append(target)

    def next(self) -> str | None:
        """The node to run now, or None if those left wait for each other."""
        ready = [node for node, waits in self._waits_for.items() if not waits]
        if not ready:
            return None
        for node in ready:
            if self._is_output(node):
                return node
        for node in ready:
            if any(self._is_output(n) for n in self._blocks[node]):
                return node
        for node in ready:
            if any(self._is_output(m) for n in self._blocks[node] for m in self._blocks[n]):
                return node
        return ready[0]

    def done(self, node: str) -> None:
        del self._waits_for[node]
        for blocked in self._blocks.pop(node):
            self._waits_for[blocked].discard(node)


def signatures(graph: Graph, changed: Callable[[str], str]) -> dict[str, str]:
    """For each node a hash of its class, inputs and everything above it, whatever the nodes are called.

    `changed` gives what else a node's result depends on (a file's content, or something always new).
    """
    found: dict[str, str] = {}
    opened: set[str] = set()
    stack = [(node, False) for node in reversed(list(graph))]
    while stack:
        node, sources_done = stack.pop()
        if sources_done:
            found[node] = _signature(graph, node, found, changed(node))
        elif node not in opened:
            opened.add(node)
            stack.append((node, True))
            stack.extend((s, False) for s in _sources(graph, node) if s in graph and s not in opened)
    return found


def _sources(graph: Graph, node: str) -> Iterable[str]:
    return (v[0] for v in graph[node].get("inputs", {}).values() if is_link(v))


def _signature(graph: Graph, node: str, found: Mapping[str, str], changed: str) -> str:
    parts = [str(graph[node].get("class_type")), changed]
    inputs = graph[node].get("inputs", {})
    for name in sorted(inputs):
        value = inputs[name]
        parts.append(
            f"{name}={found.get(value[0], '')}:{value[1]}" if is_link(value) else f"{name}={value!r}"
        )
    return hashlib.blake2b("\x1f".join(parts).encode(errors="replace"), digest_size=16).hexdigest()
