"""What a backend has (node classes, model files), and what a whole pool has.

An inventory is stored by the hash of its document and compared with requirements; reading it from ComfyUI's
`/object_info` is `comfyui/inventory.py`'s business.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from heapq import nlargest
from typing import Any, Final, Self

from comfy_api_service.domain.graph import ModelRef, Requirement, canonical

Number = int | float

_NEAREST: Final = 3
_CUTOFF: Final = 0.4
_COMPARED: Final = 40
"""difflib takes some 50 µs a name: of long lists only this many, by their common triples, are given to it."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a node class."""

    type: str
    """ComfyUI's type: INT, FLOAT, STRING, BOOLEAN, COMBO for every enumeration, else the type of a link."""
    required: bool
    options: tuple[Any, ...] | None = None
    """The values of an enumeration; None if it is none, or its values are not known."""
    minimum: Number | None = None
    maximum: Number | None = None
    default: Any = None
    upload: str | None = None
    """What file a caller may bring for it: image, video, audio or file; None if the value names none."""
    control: bool = False
    """The page shows a second widget behind it that says what happens to the value after a run."""
    link_only: bool = False
    """The page shows no widget for it, whatever its type."""
    dynamic: bool = False
    """The page rewrites its text when it queues: comments are cut, `{a|b}` becomes one of the two, at random."""
    grid: Number | None = None
    """What the page rounds a number to that another node of the page gives; None if to nothing (INT: to 1)."""


@dataclass(frozen=True, slots=True)
class NodeClass:
    """A node class: its inputs by name in the order of the page (hidden ones left out), and the types of its
    outputs in order.
    """

    name: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[str, ...]
    output_node: bool


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a backend lacks of a requirement; false when nothing."""

    nodes: tuple[str, ...] = ()
    models: tuple[ModelRef, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes or self.models)


@dataclass(frozen=True)
class Inventory:
    """Everything one backend has; `models` maps a kind to its names, sorted."""

    classes: Mapping[str, NodeClass]
    models: Mapping[str, tuple[str, ...]]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical document, in hex: the same content, the same hash."""
        return hashlib.sha256(canonical(self.document())).hexdigest()

    def __hash__(self) -> int:
        return hash(self.hash)

    def document(self) -> dict[str, Any]:
        """As it is stored, plain JSON: each list of options once, since loaders repeat whole model lists."""
        lists: list[list[Any]] = []
        seen: dict[tuple[tuple[type, Any], ...], int] = {}
        classes: dict[str, Any] = {}
        for name in sorted(self.classes):
            node = self.classes[name]
            inputs: dict[str, Any] = {}
            for key, spec in sorted(node.inputs.items()):
                entry: dict[str, Any] = {"type": spec.type, "required": spec.required}
                if spec.options is not None:
                    typed = tuple((type(option), option) for option in spec.options)
                    if typed not in seen:
                        seen[typed] = len(lists)
                        lists.append(list(spec.options))
                    entry["options"] = seen[typed]
                bounds = {
                    "min": spec.minimum,
                    "max": spec.maximum,
                    "default": spec.default,
                    "grid": spec.grid,
                }
                marks = {
                    "upload": spec.upload,
                    "control": spec.control,
                    "link_only": spec.link_only,
                    "dynamic": spec.dynamic,
                }
                inputs[key] = (
                    entry
                    | {word: value for word, value in bounds.items() if value is not None}
                    | {word: value for word, value in marks.items() if value}
                )
            classes[name] = {
                "inputs": inputs,
                "order": list(node.inputs),
                "outputs": list(node.outputs),
                "output_node": node.output_node,
            }
        models = {kind: list(self.models[kind]) for kind in sorted(self.models)}
        return {"classes": classes, "lists": lists, "models": models}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inventory that `document` wrote, of this version or an earlier one. Raises KeyError or IndexError
        for anything else.
        """
        lists = [tuple(options) for options in document["lists"]]
        classes = {}
        for name, node in document["classes"].items():
            specs = {
                key: InputSpec(
                    type=entry["type"],
                    required=entry["required"],
                    options=lists[entry["options"]] if "options" in entry else None,
                    minimum=entry.get("min"),
                    maximum=entry.get("max"),
                    default=entry.get("default"),
                    upload=entry.get("upload"),
                    control=entry.get("control", False),
                    link_only=entry.get("link_only", False),
                    dynamic=entry.get("dynamic", False),
                    grid=entry.get("grid"),
                )
                for key, entry in node["inputs"].items()
            }
            inputs = {key: specs[key] for key in node.get("order", specs)}
            classes[name] = NodeClass(name, inputs, tuple(node["outputs"]), node["output_node"])
        return cls(classes, {kind: tuple(names) for kind, names in document["models"].items()})

    @cached_property
    def _nodes(self) -> frozenset[str]:
        return frozenset(self.classes)

    @cached_property
    def _names(self) -> Mapping[str, frozenset[str]]:
        return {kind: frozenset(names) for kind, names in self.models.items()}

    def satisfies(self, requirement: Requirement) -> bool:
        """True if nothing of the requirement is lacking."""
        return self._nodes.issuperset(requirement.nodes) and all(map(self.has, requirement.models))

    def lacks(self, requirement: Requirement) -> Lacking:
        """The classes and models that are not here, in the requirement's order."""
        return Lacking(
            tuple(name for name in requirement.nodes if name not in self._nodes),
            tuple(model for model in requirement.models if not self.has(model)),
        )

    def has(self, model: ModelRef) -> bool:
        """True if the model is in the list of its kind.

        The kind `Class.input` of an input that is no enumeration (a path in a text field) has no list: such a
        model cannot be judged here and counts as present; ComfyUI itself decides when it runs.
        """
        names = self._names.get(model.kind)
        if names is not None:
            return model.name in names
        class_name, dot, input_name = model.kind.rpartition(".")
        node = self.classes.get(class_name) if dot else None
        spec = node.inputs.get(input_name) if node is not None else None
        return spec is not None and spec.options is None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a whole pool has: who has which model, who has which node class.

    Compared and hashed by identity: one is built for each change of the pool.
    """

    models: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """kind → name → names of the backends that have it, sorted."""
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """class → names of the backends that have it, sorted."""
    backends: tuple[str, ...] = ()
    """Names of the backends whose inventory is known, sorted."""

    @property
    def known(self) -> bool:
        """False before any inventory: then nothing can be said about models."""
        return bool(self.backends)

    @classmethod
    def empty(cls) -> Self:
        return cls()

    @classmethod
    def of(cls, inventories: Mapping[str, Inventory]) -> Self:
        """The sum of the inventories, given by the names of their backends."""
        models: dict[str, dict[str, list[str]]] = {}
        nodes: dict[str, list[str]] = {}
        for backend in sorted(inventories):
            inventory = inventories[backend]
            for kind, names in inventory.models.items():
                of_kind = models.setdefault(kind, {})
                for name in names:
                    of_kind.setdefault(name, []).append(backend)
            for class_name in inventory.classes:
                nodes.setdefault(class_name, []).append(backend)
        return cls(
            {
                kind: {name: tuple(who) for name, who in sorted(names.items())}
                for kind, names in sorted(models.items())
            },
            {class_name: tuple(who) for class_name, who in sorted(nodes.items())},
            tuple(sorted(inventories)),
        )

    def having(self, kind: str, name: str) -> tuple[str, ...]:
        """The backends that have the model; empty when none has."""
        return self.models.get(kind, {}).get(name, ())

    def nearest(self, kind: str, name: str) -> tuple[str, ...]:
        """At most three names of that kind that resemble the name, the nearest first."""
        return nearest(name, self.models.get(kind, {}))


def nearest(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """At most three of the candidates that resemble the name, whatever their case, folder and suffix."""
    plain = _plain(name)[:100]
    triples = _triples(plain)
    few = nlargest(_COMPARED, candidates, key=lambda other: (len(triples & _triples(_plain(other))), other))
    by_plain: dict[str, list[str]] = {}
    for candidate in sorted(few):
        by_plain.setdefault(_plain(candidate)[:100], []).append(candidate)
    close = get_close_matches(plain, by_plain, n=_NEAREST, cutoff=_CUTOFF)
    return tuple(candidate for match in close for candidate in by_plain[match])[:_NEAREST]


def _plain(name: str) -> str:
    """Lower case, without folder and suffix."""
    last = name.replace("\\", "/").rpartition("/")[2].lower()
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and stem and len(suffix) <= 11 else last


def _triples(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(max(1, len(text) - 2))}
