"""Whether a graph may run, and the answer a ComfyUI server gives when it may not. Pure but for `exists`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .inventory import Inventory, NodeClass

TRACEBACK = ['  File "execution.py", line 1, in execute\n']
CHECKED_FILES = {"LoadImage": "image", "LoadImageMask": "image", "LoadLatent": "latent", "LoadVideo": "file"}
"""Classes with a check of their own: it replaces the ones of range and list for this input."""
FILE_KINDS = {"LoadLatent": "Invalid latent file", "LoadVideo": "Invalid video file"}

Errors = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is None if at least one output may run; `node_errors` tells of the others even then."""

    error: dict[str, Any] | None
    outputs: list[str]
    node_errors: dict[str, Any]


def validate(
    graph: dict[str, Any],
    inventory: Inventory,
    exists: Callable[[str], bool],
    only: list[str] | None = None,
) -> Verdict:
    """Check the whole graph. Numbers given as text are converted in place, as the real server does."""
    outputs = []
    for node_id, node in graph.items():
        if "class_type" not in node:
            return _refused(
                "invalid_prompt",
                "Cannot execute because a node is missing the class_type property.",
                f"Node ID '#{node_id}'",
            )
        node_class = inventory.classes.get(node["class_type"])
        if node_class is None:
            return _refused(
                "invalid_prompt",
                f"Cannot execute because node {node['class_type']} does not exist.",
                f"Node ID '#{node_id}'",
            )
        if node_class.output_node and (only is None or node_id in only):
            outputs.append(node_id)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs")
    return _Validator(graph, inventory, exists).outputs(outputs)


def _refused(kind: str, message: str, details: str = "", errors: dict[str, Any] | None = None) -> Verdict:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return Verdict(error, [], errors or {})


class _Validator:
    def __init__(self, graph: dict[str, Any], inventory: Inventory, exists: Callable[[str], bool]) -> None:
        self._graph = graph
        self._inventory = inventory
        self._exists = exists
        self._seen: dict[str, tuple[bool, Errors]] = {}

    def outputs(self, outputs: list[str]) -> Verdict:
        good, details = [], list[str]()
        node_errors: dict[str, Any] = {}
        for output in outputs:
            try:
                valid, reasons = self._node(output)
            except Exception as error:  # noqa: BLE001 - whatever a malformed graph causes becomes an answer
                valid, reasons = False, [_exception("exception_during_validation", "node", error, {})]
                self._seen[output] = (valid, reasons)
            if valid:
                good.append(output)
                continue
            details += [f"{r['message']}: {r['details']}" for r in reasons]
            for node_id, (node_valid, errors) in self._seen.items():
                if not node_valid and errors:
                    entry = node_errors.setdefault(
                        node_id,
                        {
                            "errors": errors,
                            "dependent_outputs": [],
                            "class_type": self._graph[node_id]["class_type"],
                        },
                    )
                    entry["dependent_outputs"].append(output)
        if not good:
            return _refused(
                "prompt_outputs_failed_validation",
                "Prompt outputs failed validation",
                "\n".join(details),
                node_errors,
            )
        return Verdict(None, good, node_errors)

    def _node(self, node_id: str) -> tuple[bool, Errors]:
        if node_id in self._seen:
            return self._seen[node_id]
        node = self._graph[node_id]
        node_class = self._inventory.classes[node["class_type"]]
        inputs: dict[str, Any] = node["inputs"]
        errors: Errors = []
        valid = True
        for name, spec in node_class.inputs.items():
            if name not in inputs:
                if name in node_class.required:
                    errors.append(
                        _error(
                            "required_input_missing", "Required input is missing", name, {"input_name": name}
                        )
                    )
                continue
            config = [spec[0], spec[1] if len(spec) > 1 else {}]
            if isinstance(inputs[name], list):
                valid = self._link(name, inputs[name], config, errors) and valid
            else:
                self._value(node_class, name, inputs, config, errors)
        self._check_file(node_class, inputs, errors)
        result = (valid and not errors, errors)
        self._seen[node_id] = result
        return result

    def _link(self, name: str, value: list[Any], config: list[Any], errors: Errors) -> bool:
        info = {"input_name": name, "input_config": config}
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            errors.append(_error("bad_linked_input", message, name, {**info, "received_value": value}))
            return True
        source, slot = value
        received = self._inventory.classes[self._graph[source]["class_type"]].output[slot]
        if not _types_match(received, config[0]):
            details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
            extra = {**info, "received_type": received, "linked_node": value}
            errors.append(
                _error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)
            )
            return True
        try:
            return self._node(source)[0]
        except Exception as error:  # noqa: BLE001 - as above
            reason = _exception("exception_during_inner_validation", "inner node", error, info)
            reason["extra_info"]["linked_node"] = value
            self._seen[source] = (False, [reason])
            return False

    def _value(
        self, node_class: NodeClass, name: str, inputs: dict[str, Any], config: list[Any], errors: Errors
    ) -> None:
        kind, options = config
        value = inputs[name]
        info = {"input_name": name, "input_config": config}
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        try:
            if not isinstance(kind, list) and kind in _CONVERSIONS:
                value = inputs[name] = _CONVERSIONS[kind](value)
        except Exception as error:  # noqa: BLE001 - any failure to convert is the caller's error
            message = f"Failed to convert an input value to a {kind} value"
            extra = {**info, "received_value": value, "exception_message": str(error)}
            errors.append(_error("invalid_input_type", message, f"{name}, {value}, {error}", extra))
            return
        if CHECKED_FILES.get(node_class.name) == name:
            return
        extra = {**info, "received_value": value}
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            errors.append(_error("value_smaller_than_min", message, name, extra))
        elif "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            errors.append(_error("value_bigger_than_max", message, name, extra))
        elif isinstance(kind, list) or (kind == "COMBO" and self._inventory.checks_newer_enumerations):
            choices = kind if isinstance(kind, list) else options.get("options", [])
            if value not in choices:
                many = len(choices) > 20
                shown = f"(list of length {len(choices)})" if many else str(choices)
                extra["input_config"] = None if many else config
                errors.append(
                    _error(
                        "value_not_in_list", "Value not in list", f"{name}: '{value}' not in {shown}", extra
                    )
                )

    def _check_file(self, node_class: NodeClass, inputs: Mapping[str, Any], errors: Errors) -> None:
        field = CHECKED_FILES.get(node_class.name)
        if field is None or field not in inputs or isinstance(inputs[field], list):
            return
        if not self._exists(str(inputs[field])):
            what = FILE_KINDS.get(node_class.name, "Invalid image file")
            details = f"{field} - {what}: {inputs[field]}"
            errors.append(
                _error(
                    "custom_validation_failed",
                    "Custom validation failed for node",
                    details,
                    {"input_name": field},
                )
            )


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _types_match(received: Any, wanted: Any) -> bool:
    if received == wanted or "*" in (received, wanted):
        return True
    if isinstance(received, list) and wanted == "COMBO":
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool({t.strip() for t in received.split(",")} & {t.strip() for t in wanted.split(",")})


def _error(kind: str, message: str, details: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _exception(kind: str, what: str, error: Exception, info: dict[str, Any]) -> dict[str, Any]:
    name = type(error).__qualname__
    extra: dict[str, Any] = {**info, "exception_type": name, "traceback": TRACEBACK}
    if kind == "exception_during_inner_validation":
        extra = {
            **info,
            "exception_message": str(error),
            "exception_type": name,
            "traceback": TRACEBACK,
        }
    return _error(kind, f"Exception when validating {what}", str(error), extra)
