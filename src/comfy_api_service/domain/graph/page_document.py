"""Reading a workflow as ComfyUI's page saves it: nodes and links by their ids.

The document is a stranger's: whatever is not as the page writes it is a problem, never an exception.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused, Problem

MAX_NODES: Final = 5_000
MAX_LINKS: Final = 50_000
MAX_NAME: Final = 512
"""Characters of an id, a class, an input's name."""
_MAX_LINK: Final = 2**53


class Reason(StrEnum):
    """Why a workflow is not converted; each problem carries one, as `details.reason`."""

    FORM = "form"
    SIZE = "size"
    CLASS = "class"
    SUBGRAPH = "subgraph"
    GROUP_NODE = "group_node"
    DYNAMIC_INPUT = "dynamic_input"
    WIDGETS = "widgets"
    VALUE = "value"
    RANDOM_TEXT = "random_text"
    LINK = "link"
    MODE = "mode"


class Mode:
    """The modes of a node that have a meaning in a prompt."""

    ALWAYS: Final = 0
    MUTED: Final = 2
    BYPASSED: Final = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """One input socket of a node; `widget` is true if it is the socket of a widget."""

    name: str
    link: int | None
    widget: bool


@dataclass(frozen=True, slots=True)
class PageNode:
    """One node; `values` are those of its widgets, as they were saved: a list, or by name."""

    id: str
    type: str
    mode: int
    title: str
    slots: Mapping[str, Slot]
    values: list[Any] | Mapping[str, Any]
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PageLink:
    source: str
    output: int
    target: str


@dataclass(frozen=True, slots=True)
class Page:
    nodes: Mapping[str, PageNode]
    links: Mapping[int, PageLink]


def problem(
    reason: Reason, message: str, node: PageNode | None = None, input_name: str | None = None
) -> Problem:
    code = Code.NODE_NOT_AVAILABLE if reason is Reason.CLASS else Code.INVALID_GRAPH
    node_id, class_type = (None, None) if node is None else (node.id, node.type)
    return Problem(code, message, node_id, class_type, input_name, details={"reason": reason.value})


def read(document: Mapping[str, Any]) -> Page:
    """The nodes and links of the document. Raises GraphRefused with everything that is not of the form."""
    raw_nodes, raw_links = document.get("nodes"), document.get("links")
    raw_links = [] if raw_links is None else raw_links
    if not isinstance(raw_nodes, list) or not isinstance(raw_links, list):
        raise GraphRefused([problem(Reason.FORM, "`nodes` and `links` must be lists.")])
    if len(raw_nodes) > MAX_NODES or len(raw_links) > MAX_LINKS:
        message = f"At most {MAX_NODES} nodes and {MAX_LINKS} links are converted."
        raise GraphRefused([problem(Reason.SIZE, message)])
    reading = _Reading()
    for number, raw in enumerate(raw_nodes):
        reading.node(number, raw)
    for number, raw in enumerate(raw_links):
        reading.link(number, raw)
    reading.check_ends()
    if reading.problems:
        raise GraphRefused(reading.problems)
    return Page(reading.nodes, reading.links)


@dataclass(slots=True)
class _Reading:
    nodes: dict[str, PageNode] = field(default_factory=dict)
    links: dict[int, PageLink] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def node(self, number: int, raw: object) -> None:
        if not isinstance(raw, Mapping):
            self._refuse(f"Node number {number} is not an object.")
            return
        node_id, type_ = _id(raw.get("id")), raw.get("type")
        if node_id is None or not isinstance(type_, str) or not 0 < len(type_) <= MAX_NAME:
            self._refuse(f"Node number {number} has no usable id or type.")
            return
        if node_id in self.nodes:
            self._refuse(f"Two nodes have the id {node_id}.")
            return
        mode = raw.get("mode", Mode.ALWAYS)
        values, properties = raw.get("widgets_values"), raw.get("properties")
        slots = _slots(raw.get("inputs"))
        title = raw.get("title")
        node = PageNode(
            node_id,
            type_,
            mode if type(mode) is int else -1,
            title if isinstance(title, str) else "",
            slots or {},
            values if isinstance(values, list | Mapping) else [],
            properties if isinstance(properties, Mapping) else {},
        )
        self.nodes[node_id] = node
        if slots is None:
            self._refuse("The node's inputs are not as the page writes them.", node)
        if values is not None and not isinstance(values, list | Mapping):
            self._refuse("The node's `widgets_values` are neither a list nor an object.", node)

    def link(self, number: int, raw: object) -> None:
        if isinstance(raw, list) and len(raw) >= 5:
            link_id, source, output, target = raw[0], raw[1], raw[2], raw[3]
        elif isinstance(raw, Mapping):
            link_id, source, output, target = map(raw.get, ("id", "origin_id", "origin_slot", "target_id"))
        else:
            self._refuse(f"Link number {number} is not as the page writes it.")
            return
        ends = _id(source), _id(target)
        if not _is_number(link_id) or not _is_number(output) or ends[0] is None or ends[1] is None:
            self._refuse(f"Link number {number} is not as the page writes it.")
        elif link_id in self.links:
            self._refuse(f"Two links have the id {link_id}.")
        else:
            self.links[link_id] = PageLink(ends[0], output, ends[1])

    def check_ends(self) -> None:
        """A link stands in two places: in the list, and at the input that it ends in."""
        used: set[int] = set()
        for node in self.nodes.values():
            for slot in node.slots.values():
                if slot.link is None:
                    continue
                link = self.links.get(slot.link)
                if link is None or link.target != node.id or slot.link in used:
                    self._refuse(
                        "The input's link is not in the list of links.", node, slot.name, Reason.LINK
                    )
                elif link.source not in self.nodes:
                    self._refuse("The input's link begins nowhere.", node, slot.name, Reason.LINK)
                used.add(slot.link)
        for link_id, link in self.links.items():
            if link_id not in used:
                node_at_end = self.nodes.get(link.target)
                self._refuse(f"Link {link_id} ends at no input.", node_at_end, None, Reason.LINK)

    def _refuse(
        self,
        message: str,
        node: PageNode | None = None,
        input_name: str | None = None,
        reason: Reason = Reason.FORM,
    ) -> None:
        self.problems.append(problem(reason, message, node, input_name))
        if len(self.problems) >= ENOUGH:
            raise GraphRefused(self.problems)


def _slots(raw: object) -> dict[str, Slot] | None:
    """The sockets by name; None if they are not as the page writes them."""
    if raw is None:
        return {}
    if not isinstance(raw, list):
        return None
    found: dict[str, Slot] = {}
    for item in raw:
        slot = _slot(item)
        if slot is None or slot.name in found:
            return None
        found[slot.name] = slot
    return found


def _slot(raw: object) -> Slot | None:
    if not isinstance(raw, Mapping):
        return None
    name, link = raw.get("name"), raw.get("link")
    if not isinstance(name, str) or len(name) > MAX_NAME or not (link is None or _is_number(link)):
        return None
    return Slot(name, link, raw.get("widget") is not None)


def _id(raw: object) -> str | None:
    if _is_number(raw):
        return str(raw)
    return raw if isinstance(raw, str) and 0 < len(raw) <= MAX_NAME else None


def _is_number(raw: object) -> bool:
    return type(raw) is int and 0 <= raw <= _MAX_LINK


def reasons(problems: Iterable[Problem]) -> frozenset[str]:
    """The reasons of the problems, each once."""
    return frozenset(str(one.details.get("reason", "")) for one in problems)
