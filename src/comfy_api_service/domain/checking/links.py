"""The links of a graph: to nodes that are there, of types that fit, in no circle and no endless row."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from comfy_api_service.domain.checking.rules import Findings

_SHOWN: Final = 20
_ANY: Final = frozenset({"*", "COMFY_MATCHTYPE_V3"})
"""Types that fit every other; of the second the page alone decides what fits."""

LINKED_ONLY: Final = frozenset(
    {
        "AUDIO", "AUDIO_ENCODER", "AUDIO_ENCODER_OUTPUT", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT",
        "CONDITIONING", "CONTROL_NET", "GLIGEN", "GUIDER", "HOOKS", "IMAGE", "LATENT", "LATENT_OPERATION",
        "LATENT_UPSCALE_MODEL", "MASK", "MODEL", "MODEL_PATCH", "NOISE", "PHOTOMAKER", "SAMPLER", "SIGMAS",
        "STYLE_MODEL", "TRACKS", "UPSCALE_MODEL", "VAE", "VIDEO", "WAN_CAMERA_EMBEDDING",
    }
)  # fmt: skip
"""Types of ComfyUI's own that only a node can give. It lets a plain value pass, and fails when it runs."""


def is_meant(value: object) -> TypeGuard[list[Any]]:
    """True for what ComfyUI takes for a link when it runs: a list of a text and a number, `true` included."""
    return (
        type(value) is list
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def fault_of(value: Sequence[Any], nodes: Container[str]) -> str | None:
    """What is wrong with a list where a link is wanted, whatever the types; None if it leads to a node."""
    if len(value) != 2 or not isinstance(value[0], str):
        return "a link is a list of a node's id and the number of its output"
    if type(value[1]) is not int or not 0 <= value[1] < 1000:
        return "the number of a link's output is a whole number from 0"
    if value[0] not in nodes:
        return "the link leads to a node that is not there"
    return None


def types_fit(given: str, wanted: str) -> bool:
    """ComfyUI's rule: equal, or one of them anything, or unions with a type in common."""
    if given == wanted or given in _ANY or wanted in _ANY:
        return True
    of_given = {one.strip() for one in given.split(",")}
    of_wanted = {one.strip() for one in wanted.split(",")}
    return "*" in of_given or "*" in of_wanted or bool(of_given & of_wanted)


class Wiring:
    """Which node takes from which: made of links that lead to nodes."""

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self.sources: dict[str, list[str]] = {
            node_id: [value[0] for value in node["inputs"].values() if is_meant(value) and value[0] in nodes]
            for node_id, node in nodes.items()
        }
        """Node → sources, one for each link, so the same one may stand there twice."""
        self.order, self._left = self._sorted()

    def _sorted(self) -> tuple[list[str], set[str]]:
        """(the nodes, sources first; those that a circle keeps from having a place)."""
        waits = {node_id: set(sources) for node_id, sources in self.sources.items()}
        takers: dict[str, list[str]] = {}
        for node_id, sources in waits.items():
            for source in sources:
                takers.setdefault(source, []).append(node_id)
        order = [node_id for node_id, sources in waits.items() if not sources]
        for node_id in order:  # grows while it is walked
            for taker in takers.get(node_id, ()):
                waits[taker].discard(node_id)
                if not waits[taker]:
                    order.append(taker)
        return order, waits.keys() - set(order)

    def check(self, longest: int, findings: Findings) -> bool:
        """Finds circles and rows of more than `longest` nodes; True if there are none."""
        if self._left:
            circle = self._circle()
            findings.add("the links go round in a circle", circle[0], nodes=circle[:_SHOWN])
            return False
        length: dict[str, int] = {}
        for node_id in self.order:
            length[node_id] = 1 + max((length[source] for source in self.sources[node_id]), default=0)
        if max(length.values(), default=0) > longest:
            findings.add(f"more than {longest} nodes take from each other in a row", bound=longest)
            return False
        return True

    def _circle(self) -> list[str]:
        """The nodes of one circle, in the order of its links."""
        node_id = next(node_id for node_id in self.sources if node_id in self._left)
        walked: dict[str, None] = {}
        while node_id not in walked:
            walked[node_id] = None
            node_id = next(source for source in self.sources[node_id] if source in self._left)
        row = list(walked)
        return row[row.index(node_id) :]

    def needed_by(self, outputs: Iterable[str]) -> set[str]:
        """The outputs, and every node that they take from."""
        needed = set(outputs)
        waiting = list(needed)
        while waiting:
            for source in self.sources[waiting.pop()]:
                if source not in needed:
                    needed.add(source)
                    waiting.append(source)
        return needed
