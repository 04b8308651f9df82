"""What a graph is checked against, what a checked graph is, and the gathering of its problems."""

from dataclasses import dataclass, field
from typing import Any, Final

from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import Requirement
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused, Problem
from comfy_api_service.domain.node_policy import NodePolicy

_SHOWN: Final = 64
"""Characters of a caller's own name (a node's id, a class, an input) that a problem shows."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy of the caller, and the most that a graph may be."""

    policy: NodePolicy
    max_nodes: int = 2000
    max_bytes: int = 2 * 2**20
    """Of the canonical JSON, pictures in data URLs apart."""
    max_values: int = 100_000
    """JSON values in the whole document: texts, numbers, lists, objects …"""
    max_depth: int = 32
    """Lists and objects inside of each other in one input's value."""
    max_text: int = 100_000
    """Characters of one text."""
    max_data: int = 16 * 2**20
    """Characters of one data URL: 12 MiB of picture."""
    max_chain: int = 256
    """Nodes in a row. ComfyUI walks a graph by recursion, and fails at some 900."""
    max_joined: int = 1024
    """Times that something may be joined with itself, node after node: 20 nodes make a million of one text."""
    max_built: int = 10**7
    """Characters of all texts that text nodes put together."""
    max_pixels: int = 2**28
    """Width · height · pictures · frames of the largest batch: 4 pictures of 8192 by 8192, 3 GB as ComfyUI holds
    them.
    """
    max_pictures: int = 1000
    """Pictures that the whole graph gives."""


@dataclass(frozen=True, slots=True)
class FileInput:
    """An input that names a caller's file: `upl_…`, `job_…` (or `job_…/2`), `data:image/…` or `https://…`."""

    node_id: str
    input: str
    kind: str
    """What it must be: image."""
    value: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A graph that may be queued. Checked again by the same rules, it comes out the same."""

    graph: dict[str, dict[str, Any]]
    """Plain JSON, `class_type` and `inputs` of each node alone, values as ComfyUI reads them."""
    requirement: Requirement
    files: tuple[FileInput, ...]
    """In the order of the nodes and inputs."""
    images: int
    """`pictures_in` the graph."""
    pixel_steps: float


@dataclass(slots=True)
class Findings:
    """The problems so far."""

    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        message: str,
        node_id: str | None = None,
        class_type: str | None = None,
        input: str | None = None,  # noqa: A002 - the name it has in the answer
        *,
        code: Code = Code.INVALID_GRAPH,
        **details: Any,
    ) -> None:
        """`message` ends without a full stop; where it stands is put before it.

        Raises GraphRefused with all problems so far when there are enough.
        """
        node_id, class_type, input = shown(node_id), shown(class_type), shown(input)  # noqa: A001
        where = "" if node_id is None else f"Node {node_id}"
        where += f" ({class_type})" if class_type else ""
        where += f", {input}" if input else ""
        text = f"{where}: {message}." if where else f"{message[:1].upper()}{message[1:]}."
        self.problems.append(Problem(code, text, node_id, class_type, input, details))
        if len(self.problems) >= ENOUGH:
            raise GraphRefused(self.problems)


def shown(name: str | None) -> str | None:
    """A caller's own name, short and printable."""
    if name is None or (len(name) <= _SHOWN and name.isascii() and name.isprintable()):
        return name
    plain = name[:_SHOWN].encode("ascii", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in plain)[:_SHOWN]
