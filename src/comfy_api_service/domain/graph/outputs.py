"""Which nodes of a graph give output."""

from collections.abc import Mapping
from typing import Final, Protocol

from comfy_api_service.domain.graph.form import Graph, class_of

OUTPUT_CLASSES: Final = frozenset(
    {
        "CLIPSave",
        "CheckpointSave",
        "ImageCompare",
        "MaskPreview",
        "ModelSave",
        "Preview3D",
        "Preview3DAnimation",
        "PreviewAny",
        "PreviewAudio",
        "PreviewImage",
        "SaveAnimatedPNG",
        "SaveAnimatedWEBP",
        "SaveAudio",
        "SaveAudioMP3",
        "SaveAudioOpus",
        "SaveGLB",
        "SaveImage",
        "SaveImageWebsocket",
        "SaveLatent",
        "SaveSVGNode",
        "SaveVideo",
        "SaveWEBM",
        "VAESave",
        "VHS_VideoCombine",
    }
)
"""Known output classes, for as long as no inventory says which they are."""


class OutputClass(Protocol):
    """What is asked of a node class here."""

    @property
    def output_node(self) -> bool: ...


class KnowsClasses(Protocol):
    """What is asked of an inventory here: `Inventory` is one."""

    @property
    def classes(self) -> Mapping[str, OutputClass]: ...


def output_nodes(graph: Graph, inventory: KnowsClasses | None) -> tuple[str, ...]:
    """Ids of the nodes whose class is an output class, in the order of their numbers, then of their names.

    The inventory says which classes are; without one, and for a class it lacks, `OUTPUT_CLASSES` does.
    """
    classes: Mapping[str, OutputClass] = {} if inventory is None else inventory.classes
    found = []
    for node_id, node in graph.items():
        name = class_of(node)
        known = classes.get(name)
        if known.output_node if known is not None else name in OUTPUT_CLASSES:
            found.append(node_id)
    return tuple(sorted(found, key=_order))


def _order(node_id: str) -> tuple[bool, int, str]:
    digits = node_id.isascii() and node_id.isdigit() and len(node_id) < 10
    return (not digits, int(node_id) if digits else 0, node_id)
