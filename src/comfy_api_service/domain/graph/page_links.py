"""Where a link of the page begins in the prompt: behind bypassed nodes, reroutes and primitives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from comfy_api_service.domain.graph.page_document import Mode, Page, PageLink, PageNode, Reason
from comfy_api_service.domain.graph.page_widgets import NotExactError, grows, has_widget

if TYPE_CHECKING:  # the inventory is built upon this package
    from comfy_api_service.domain.inventory import NodeClass

REROUTE: Final = "Reroute"
PRIMITIVE: Final = "PrimitiveNode"
VIRTUAL: Final = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
"""The page's own nodes, which no prompt holds."""
MAX_HOPS: Final = 20_000
"""Bypassed nodes and reroutes that are gone through, for all links of a workflow."""
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Origin:
    node: PageNode
    output: int


@dataclass(slots=True)
class Tracing:
    """Follows links back; raises NotExactError where the page would go round in a circle or cannot go on."""

    page: Page
    classes: Mapping[str, "NodeClass"]
    hops: int = field(default=0)

    def origin(self, link_id: int, wanted: str) -> Origin | None:
        """The node and output that the input of type `wanted` is linked to in the prompt; None if to nothing."""
        link: PageLink | None = self.page.links[link_id]
        seen: set[tuple[str, int]] = set()
        while link is not None:
            node = self.page.nodes[link.source]
            if node.type in VIRTUAL or node.mode == Mode.BYPASSED:
                self._note_hop(node, link, seen)
            else:
                return Origin(node, link.output)
            if node.type == PRIMITIVE:
                return Origin(node, link.output)
            if node.type in VIRTUAL:
                link, wanted = self._through_reroute(node, link, wanted)
            else:
                link, wanted = self._through_bypassed(node, link, wanted)
        return None

    def _note_hop(self, node: PageNode, link: PageLink, seen: set[tuple[str, int]]) -> None:
        self.hops += 1
        if (node.id, link.output) in seen:
            raise NotExactError(Reason.LINK, f"The link goes round in a circle, through node {node.id}.")
        if self.hops > MAX_HOPS:
            raise NotExactError(Reason.SIZE, "The links go through too many bypassed nodes and reroutes.")
        seen.add((node.id, link.output))

    def _through_reroute(self, node: PageNode, link: PageLink, wanted: str) -> tuple[PageLink | None, str]:
        """A bypassed reroute forgets what type was wanted, a muted one lets through like any other."""
        linked = [slot.link for slot in node.slots.values()]
        if node.type != REROUTE or len(linked) > 1 or link.output != 0:
            raise NotExactError(Reason.LINK, f"The link comes from node {node.id}, which gives nothing.")
        before = self.page.links[linked[0]] if linked and linked[0] is not None else None
        return before, _ANY if node.mode == Mode.BYPASSED else wanted

    def _through_bypassed(self, node: PageNode, link: PageLink, wanted: str) -> tuple[PageLink | None, str]:
        described = self.classes.get(node.type)
        if described is None:
            raise NotExactError(Reason.CLASS, f"No backend has the class of the bypassed node {node.id}.")
        if any(grows(spec) or spec.type == "COMFY_MATCHTYPE_V3" for spec in described.inputs.values()):
            raise NotExactError(
                Reason.DYNAMIC_INPUT, f"The page alone knows the types of the bypassed node {node.id}."
            )
        if not 0 <= link.output < len(described.outputs):
            raise NotExactError(Reason.LINK, f"Node {node.id} has no output {link.output}.")
        sockets = _sockets(described)
        index = _matching([kind for _, kind in sockets], link.output, described.outputs[link.output], wanted)
        if index is None:
            return None, wanted
        name, kind = sockets[index]
        slot = node.slots.get(name)
        return self.page.links[slot.link] if slot is not None and slot.link is not None else None, kind


def _sockets(described: "NodeClass") -> list[tuple[str, str]]:
    """(name, type) of the inputs as the page numbers them: first those without a widget."""
    inputs = described.inputs.items()
    return [
        *((name, spec.type) for name, spec in inputs if not has_widget(spec)),
        *((name, spec.type) for name, spec in inputs if has_widget(spec)),
    ]


def _matching(types: Sequence[str], output: int, given: str, wanted: str) -> int | None:
    """Which input of a bypassed node stands in for an output of type `given`, by the page's order of choice."""
    if wanted in (_ANY, ""):
        return output if output < len(types) else 0 if types else None
    if output < len(types) and _joins(types[output], given) and _joins(types[output], wanted):
        return output
    if wanted in types:
        return types.index(wanted)
    return next((i for i, one in enumerate(types) if _joins(one, given) and _joins(one, wanted)), None)


def _joins(one: str, other: str) -> bool:
    """True if the page lets these types be linked; each may name several, with commas between them."""
    if one in (_ANY, "") or other in (_ANY, ""):
        return True
    kinds = set(one.lower().split(",")) & set(other.lower().split(","))
    return bool(kinds) or _ANY in one.split(",") or _ANY in other.split(",")
