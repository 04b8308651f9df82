"""The inputs of one node after the other: files, models, links, values."""

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from comfy_api_service.domain.checking import file_names
from comfy_api_service.domain.checking.links import LINKED_ONLY, fault_of, is_meant, types_fit
from comfy_api_service.domain.checking.rules import FileInput, Findings, Rules
from comfy_api_service.domain.checking.values import Fault, Values, check_bounds, names_model
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import KINDS
from comfy_api_service.domain.inventory import InputSpec, Inventory, NodeClass
from comfy_api_service.domain.node_policy import CORE

_WRAP: Final = "__value__"
"""ComfyUI takes `{"__value__": x}` for x: so a list can be a value and no link."""
_DYNAMIC: Final = ("COMFY_AUTOGROW", "COMFY_DYNAMIC")
"""Types of inputs that stand for others, named `{input}.{other}`, which appear while the graph is edited."""
_NUMBERS: Final = frozenset({"PrimitiveInt", "PrimitiveFloat"})
_FORBIDDEN_NAME: Final = "the name leads, or tries to lead, out of its folder"
_DROP: Final = object()


class InputCheck:
    """Checks inputs and gathers those that name callers' files."""

    def __init__(
        self,
        nodes: Mapping[str, Mapping[str, Any]],
        ids: Container[str],
        inventory: Inventory | None,
        rules: Rules,
        findings: Findings,
    ) -> None:
        """`ids` are those of all nodes, `nodes` the well-formed ones."""
        self._nodes = nodes
        self._ids = ids
        self._classes: Mapping[str, NodeClass] = {} if inventory is None else inventory.classes
        self._policy = rules.policy
        self._findings = findings
        self._faulty = {(problem.node_id, problem.input) for problem in findings.problems}
        self._values = Values()
        self.files: list[FileInput] = []

    def node(self, node_id: str, node: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs to send; each fault is noted where it stands."""
        name = node["class_type"]
        known = self._classes.get(name)
        kept = {}
        for key, value in node["inputs"].items():
            try:
                read = self._input(node_id, name, known, key, value)
            except Fault as fault:
                self._findings.add(str(fault), node_id, name, key, code=fault.code, **fault.details)
            else:
                if read is not _DROP:
                    kept[key] = read
        for key, spec in () if known is None else known.inputs.items():
            if (
                spec.required
                and key not in node["inputs"]
                and not spec.type.startswith(_DYNAMIC)
                and (node_id, key) not in self._faulty
            ):
                self._findings.add("this input is required", node_id, name, key)
        return kept

    def unneeded(self, node_id: str, node: Mapping[str, Any]) -> None:
        """Of a node that no output needs: the links' form, and names of files."""
        name = node["class_type"]
        for key, value in node["inputs"].items():
            fault = fault_of(value, self._ids) if is_meant(value) else None
            if fault is not None:
                self._findings.add(fault, node_id, name, key)
            is_file = self._file_kind(name, key) is not None
            if (is_file or names_model(name, key, value) or _may_be_path(name, key)) and any(
                file_names.is_trick(text) for text in _texts(value) if not file_names.is_reference(text)
            ):
                self._findings.add(_FORBIDDEN_NAME, node_id, name, key, code=Code.INVALID_INPUT)

    def _file_kind(self, name: str, key: str) -> str | None:
        kind = file_names.FILE_INPUTS.get((name, key))
        if kind is None and name in self._classes:
            spec = self._classes[name].inputs.get(key)
            kind = None if spec is None else spec.upload
        return kind

    def _input(self, node_id: str, name: str, known: NodeClass | None, key: str, value: Any) -> Any:
        """The value to send, or _DROP. Raises Fault."""
        spec = None if known is None else known.inputs.get(key)
        wrapped = type(value) is dict and _WRAP in value and (known is None or spec is not None)
        if wrapped:
            value = value[_WRAP]
            if is_meant(value) or (type(value) is dict and _WRAP in value):
                raise Fault("a wrapped value is no link, and not wrapped again")
        kind = self._file_kind(name, key)
        if kind is not None:
            return self._file(node_id, key, kind, spec, value)
        if not wrapped and (is_meant(value) or (type(value) is list and (spec is not None or name in CORE))):
            return self._link(name, known, key, spec, value)
        self._check_names(name, key, value)
        if known is not None and spec is None:
            return self._unknown(name, known, key, value)
        if spec is not None:
            value = self._typed(name, key, spec, value)
        return {_WRAP: value} if wrapped and type(value) is list else value

    def _unknown(self, name: str, known: NodeClass, key: str, value: Any) -> Any:
        """ComfyUI passes over a value that its class has no input for, and old exports have some (`upload`).

        They are left out, so that nothing comes in by them. Custom nodes with inputs that grow take what
        `/object_info` does not tell: theirs are kept.
        """
        return _DROP if name in CORE and not _is_grown(known, key) else value

    def _typed(self, name: str, key: str, spec: InputSpec, value: Any) -> Any:
        if spec.type in LINKED_ONLY:
            raise Fault(f"a link of type {spec.type} is needed", wanted=spec.type)
        return self._values.checked(name, key, spec, value, lists_are_whole=name in CORE)

    def _check_names(self, name: str, key: str, value: Any) -> None:
        """Names of models, embeddings in prompts, and what may be a path in classes not known here."""
        is_model = names_model(name, key, value)
        if is_model and not isinstance(value, str):
            raise Fault("the name of a model is needed")
        if is_model or _may_be_path(name, key):
            if any(file_names.is_trick(text) for text in _texts(value)):
                raise Fault(_FORBIDDEN_NAME, Code.INVALID_INPUT)
        elif any(
            file_names.is_trick(inner) for text in _texts(value) for inner in file_names.named_in_text(text)
        ):
            raise Fault("a name within the text leads out of its folder", Code.INVALID_INPUT)

    def _file(self, node_id: str, key: str, kind: str, spec: InputSpec | None, value: Any) -> str:
        if not isinstance(value, str):
            raise Fault("the file is named here itself, not by a link or a list", Code.INVALID_INPUT)
        if file_names.is_reference(value):
            if kind not in file_names.BRINGABLE:
                raise Fault("files of this kind cannot be brought", Code.INVALID_INPUT, kind=kind)
            self.files.append(FileInput(node_id, key, kind, value))
            return value
        if file_names.is_trick(value) and not value.startswith("data:"):
            raise Fault(_FORBIDDEN_NAME, Code.INVALID_INPUT)
        if not self._policy.is_open:
            raise Fault(
                "an upload's id, an earlier job's, a data URL of a PNG, JPEG or WebP, or an https URL is needed"
                if kind in file_names.BRINGABLE
                else "files of this kind cannot be brought",
                Code.INVALID_INPUT,
                kind=kind,
            )
        if not file_names.is_plain_name(value) or (
            spec is not None and spec.options is not None and value not in spec.options
        ):
            raise Fault("there is no such file", Code.INVALID_INPUT, kind=kind)
        return value

    def _link(
        self, name: str, known: NodeClass | None, key: str, spec: InputSpec | None, value: list[Any]
    ) -> list[Any]:
        """The link itself. Raises Fault."""
        fault = fault_of(value, self._ids)
        if fault is not None:
            raise Fault(fault)
        if (name, key) in KINDS and not self._policy.is_open:
            raise Fault("the model is named here itself, not by a link")
        if known is not None and spec is None and name in CORE and not _is_grown(known, key):
            raise Fault("the node has no such input")
        source = self._nodes.get(value[0])
        giving = None if source is None else self._classes.get(source["class_type"])
        if source is None or giving is None:
            return value
        if value[1] >= len(giving.outputs):
            raise Fault(
                f"node {value[0]} has {len(giving.outputs)} outputs, no number {value[1]}",
                outputs=list(giving.outputs[:20]),
            )
        given = giving.outputs[value[1]]
        if spec is not None and not types_fit(given, spec.type):
            raise Fault(
                f"a link of type {spec.type[:64]} is needed, this one gives {given[:64]}",
                wanted=spec.type[:64],
                given=given[:64],
            )
        if spec is not None and giving.name in _NUMBERS:
            constant = source["inputs"].get("value")
            if isinstance(constant, int | float) and spec.type in ("INT", "FLOAT"):
                check_bounds(spec, constant)
        return value


def _is_grown(known: NodeClass, key: str) -> bool:
    """True for `images.image0` where `images` is an input that stands for others."""
    head, dot, _ = key.partition(".")
    spec = known.inputs.get(head) if dot else None
    return spec is not None and spec.type.startswith(_DYNAMIC)


def _may_be_path(name: str, key: str) -> bool:
    return name not in CORE and file_names.may_be_path(name, key)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, at any depth: it is of bounded depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
