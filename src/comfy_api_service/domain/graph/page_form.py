"""Workflows as ComfyUI's page saves them, turned into the graph that the page itself would post.

Exact or not at all: where the page's own code decides what is sent (subgraphs, widgets that the inventory does
not describe, texts with random choices), the workflow is refused, and every node that is in the way is named.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from comfy_api_service.domain.graph.form import Graph
from comfy_api_service.domain.graph.page_document import Mode, Page, PageNode, Reason, Slot, problem, read
from comfy_api_service.domain.graph.page_links import PRIMITIVE, VIRTUAL, Tracing
from comfy_api_service.domain.graph.page_widgets import (
    NotExactError,
    check_given,
    check_inputs,
    grows,
    has_widget,
    sent,
    values_of,
)
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused, Problem

if TYPE_CHECKING:  # the inventory is built upon this package
    from comfy_api_service.domain.inventory import InputSpec, Inventory, NodeClass

_SUBGRAPH: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GROUP_NODE: Final = ("workflow>", "workflow/")
_REPLACES: Final = "Run widget replace on values"
"""The property of a primitive that lets the page fill in names and dates."""


def is_page_form(document: object) -> bool:
    """True for a workflow as the page saves it, false for a graph in API form and for anything else."""
    if not isinstance(document, Mapping) or not isinstance(document.get("nodes"), list):
        return False
    nodes = [node for node in document["nodes"] if isinstance(node, Mapping)]
    if not nodes:
        return isinstance(document.get("links"), list)
    return all("type" in node and "class_type" not in node for node in nodes)


def to_graph(document: Mapping[str, Any], inventory: "Inventory") -> Graph:
    """The graph in API form that the page would post for the workflow, titles in `_meta`.

    Left out are the values that widgets of the page alone have (previews, players): ComfyUI knows no such inputs.
    Patterns in save prefixes (`%date:…%`) stay as they are written. Raises GraphRefused with every problem:
    NODE_NOT_AVAILABLE for classes that the inventory lacks, INVALID_GRAPH for what is not exact.
    """
    page = read(document)
    conversion = _Conversion(page, inventory)
    graph = {node.id: made for node in page.nodes.values() if (made := conversion.node(node)) is not None}
    if conversion.problems:
        raise GraphRefused(conversion.problems)
    for made in graph.values():
        inputs = made["inputs"]
        for name in [
            name for name, value in inputs.items() if isinstance(value, list) and value[0] not in graph
        ]:
            del inputs[name]
    return graph


class _Conversion:
    def __init__(self, page: Page, inventory: "Inventory") -> None:
        self._page = page
        self._inventory = inventory
        self._tracing = Tracing(page, inventory.classes)
        self.problems: list[Problem] = []

    def node(self, node: PageNode) -> dict[str, Any] | None:
        """The node as it is posted; None if it is not, or cannot be converted (then there is a problem)."""
        try:
            _check_kind(node)
            if node.type in VIRTUAL or node.mode in (Mode.MUTED, Mode.BYPASSED):
                return None
            described = self._inventory.classes.get(node.type)
            if described is None:
                raise NotExactError(Reason.CLASS, f"No backend has the class of node {node.id}.")
            check_inputs(described)
            values = values_of(node, described)
        except NotExactError as fault:
            self._note(node, fault)
            return None
        inputs = self._inputs(node, described, values)
        made: dict[str, Any] = {"class_type": node.type, "inputs": inputs}
        return made | {"_meta": {"title": node.title}} if node.title else made

    def _inputs(self, node: PageNode, described: "NodeClass", values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of widgets, then the links, which take the place of values."""
        links: dict[str, Any] = {}
        driven: dict[str, Any] = {}
        for slot in node.slots.values():
            if slot.link is None:
                continue
            try:
                spec = _spec_of(slot, described)
                origin = self._tracing.origin(slot.link, spec.type)
                if origin is None:
                    continue
                if origin.node.type != PRIMITIVE:
                    links[slot.name] = [origin.node.id, origin.output]
                elif has_widget(spec):
                    driven |= self._driven(slot, spec, origin.node)
            except NotExactError as fault:
                self._note(node, fault, slot.name)
        found: dict[str, Any] = {}
        for name, value in (dict(values) | driven).items():
            if name in links:
                continue
            try:
                found[name] = sent(name, value, described.inputs[name])
            except NotExactError as fault:
                self._note(node, fault)
        return found | links

    def _driven(self, slot: Slot, spec: "InputSpec", primitive: PageNode) -> dict[str, Any]:
        """The primitive's value for the widget it drives; nothing if it has none of its own."""
        if slot.link is not None and self._page.links[slot.link].source != primitive.id:
            raise NotExactError(Reason.LINK, f"The value of node {primitive.id} comes by way of other nodes.")
        values = primitive.values
        if not isinstance(values, list):
            raise NotExactError(Reason.WIDGETS, f"The values of node {primitive.id} are not a list.")
        if not values:
            return {}
        value = values[0]
        if primitive.properties.get(_REPLACES) and isinstance(value, str) and "%" in value:
            raise NotExactError(Reason.VALUE, f"The page fills in the value of node {primitive.id}.")
        check_given(slot.name, value, spec)
        return {slot.name: value}

    def _note(self, node: PageNode, fault: NotExactError, input_name: str | None = None) -> None:
        self.problems.append(problem(fault.reason, fault.message, node, fault.input or input_name))
        if len(self.problems) >= ENOUGH:
            raise GraphRefused(self.problems)


def _check_kind(node: PageNode) -> None:
    """Raises NotExactError for what is no single node, and for a mode without a meaning in a prompt."""
    if _SUBGRAPH.fullmatch(node.type):
        raise NotExactError(
            Reason.SUBGRAPH, f"Node {node.id} is a subgraph: unpack it, or export the workflow in API form."
        )
    if node.type.startswith(_GROUP_NODE):
        raise NotExactError(
            Reason.GROUP_NODE,
            f"Node {node.id} is a group node: ungroup it, or export the workflow in API form.",
        )
    if node.mode not in (Mode.ALWAYS, Mode.MUTED, Mode.BYPASSED):
        raise NotExactError(Reason.MODE, f"Node {node.id} has a mode that is neither on, muted nor bypassed.")


def _spec_of(slot: Slot, described: "NodeClass") -> "InputSpec":
    """What the socket takes. Raises NotExactError for one that the class does not have."""
    spec = described.inputs.get(slot.name)
    if spec is None and not slot.widget:
        group = described.inputs.get(slot.name.partition(".")[0])
        spec = group if group is not None and grows(group) else None
    if spec is None:
        raise NotExactError(Reason.LINK, "The class has no such input.", slot.name)
    return spec
