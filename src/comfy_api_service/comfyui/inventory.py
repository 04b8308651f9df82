"""Reading ComfyUI's `/object_info` into an inventory.

The answer is another program's, with custom nodes' words in it: what is of a wrong type or too large is left
out, never an error. An enumeration is written in two forms, side by side on newer servers:
`[["a", "b"], {…}]` and `["COMBO", {"options": ["a", "b"], …}]`.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from comfy_api_service.domain.graph import KINDS, MODEL_SUFFIXES, kind_of
from comfy_api_service.domain.inventory import InputSpec, Inventory, NodeClass, Number

MAX_CLASSES: Final = 20_000
MAX_INPUTS: Final = 500
MAX_OUTPUTS: Final = 500
MAX_OPTIONS: Final = 50_000
"""Of one enumeration; a longer one is cut for the list of models, and its values count as not known."""
MAX_NAME: Final = 512
MAX_DEFAULT: Final = 4096
"""Characters of a default that is text."""
_UPLOADS: Final = {
    "image_upload": "image",
    "animated_image_upload": "image",
    "video_upload": "video",
    "audio_upload": "audio",
    "file_upload": "file",
}
"""What marks an input whose value is a file of ComfyUI's input folder."""
_SEEDS: Final = frozenset({"seed", "noise_seed"})
_MAX_INT: Final = 2**64 - 1


class NotObjectInfoError(ValueError):
    """The document holds not one node class: it is no `/object_info` at all."""


def parse(object_info: Mapping[str, Any]) -> Inventory:
    """The inventory that the answer describes. Raises NotObjectInfoError if it describes no node class."""
    if not isinstance(object_info, Mapping):
        raise NotObjectInfoError("the answer is not a JSON object")
    interned: dict[tuple[tuple[type, Any], ...], tuple[Any, ...]] = {}
    classes: dict[str, NodeClass] = {}
    models: dict[str, set[str]] = {}
    for name, raw in object_info.items():
        if len(classes) >= MAX_CLASSES:
            break
        node = _node_class(name, raw, interned, models)
        if node is not None:
            classes[node.name] = node
    if not classes:
        raise NotObjectInfoError("the answer describes no node class")
    return Inventory(classes, {kind: tuple(sorted(names)) for kind, names in sorted(models.items())})


def _node_class(
    name: object,
    raw: object,
    interned: dict[tuple[tuple[type, Any], ...], tuple[Any, ...]],
    models: dict[str, set[str]],
) -> NodeClass | None:
    if not _is_text(name) or not isinstance(raw, Mapping) or not isinstance(raw.get("input"), Mapping):
        return None
    class_name = str(name)
    inputs: dict[str, InputSpec] = {}
    for section in ("required", "optional"):
        described = raw["input"].get(section)
        if not isinstance(described, Mapping):
            continue
        for key, value in _ordered(described, raw.get("input_order"), section):
            if len(inputs) >= MAX_INPUTS:
                break
            if not _is_text(key) or key in inputs:
                continue
            typed, options, extra = _kind_of_value(value)
            if typed is None:
                continue
            if options is not None:
                _note_models(class_name, key, options, models)
                options = interned.setdefault(tuple((type(o), o) for o in options), options)
                options = options if len(options) <= MAX_OPTIONS else None
            inputs[key] = InputSpec(
                type=typed,
                required=section == "required",
                options=options,
                minimum=_number(extra.get("min")),
                maximum=_number(extra.get("max")),
                default=_default(extra.get("default")),
                upload=next((kind for flag, kind in _UPLOADS.items() if extra.get(flag) is True), None),
                control=_controlled(key, typed, extra.get("control_after_generate")),
                link_only=extra.get("forceInput") is True,
                dynamic=extra.get("dynamicPrompts") is True,
                grid=_grid(typed, _number(extra.get("step")), _number(extra.get("round"))),
            )
    return NodeClass(class_name, inputs, _outputs(raw.get("output")), raw.get("output_node") is True)


def _ordered(described: Mapping[Any, Any], order: object, section: str) -> list[tuple[Any, Any]]:
    """The inputs as the page shows them: in the order that is told for this purpose, then the others."""
    told = order.get(section) if isinstance(order, Mapping) else None
    first = (
        [key for key in told if isinstance(key, str) and key in described] if isinstance(told, list) else []
    )
    keys = dict.fromkeys([*first, *described])
    return [(key, described[key]) for key in keys]


def _kind_of_value(value: object) -> tuple[str | None, tuple[Any, ...] | None, Mapping[str, Any]]:
    """(type, options, the rest) of one described input; (None, …) if it makes no sense."""
    if not isinstance(value, list | tuple) or not value:
        return None, None, {}
    extra = value[1] if len(value) > 1 and isinstance(value[1], Mapping) else {}
    first = value[0]
    if isinstance(first, list | tuple):
        return "COMBO", _options(first), extra
    if not _is_text(first):
        return None, None, {}
    listed = extra.get("options") if first == "COMBO" else None
    return str(first), _options(listed) if isinstance(listed, list | tuple) else None, extra


def _options(listed: list[Any] | tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The scalar options; one more than MAX_OPTIONS tells that there were too many.

    None if there are options, but none of them is a scalar (newer servers' dynamic enumerations).
    """
    kept = tuple(option for option in listed[: MAX_OPTIONS + 1] if _is_scalar(option))
    return kept if kept or not listed else None


def _note_models(class_name: str, key: str, options: tuple[Any, ...], models: dict[str, set[str]]) -> None:
    kind = kind_of(class_name, key)
    if kind is None:
        return
    names = [option for option in options[:MAX_OPTIONS] if isinstance(option, str) and option]
    if (class_name, key) in KINDS:
        models.setdefault(kind, set()).update(names)
    elif files := [name for name in names if name.lower().endswith(MODEL_SUFFIXES)]:
        models.setdefault(kind, set()).update(files)


def _outputs(raw: object) -> tuple[str, ...]:
    """Types of the outputs by their number; a list stands for an enumeration, `*` for what makes no sense."""
    if not isinstance(raw, list | tuple):
        return ()
    return tuple(
        "COMBO" if isinstance(item, list | tuple) else str(item) if _is_text(item) else "*"
        for item in raw[:MAX_OUTPUTS]
    )


def _controlled(key: str, typed: str, told: object) -> bool:
    """Whether a second widget follows; where nothing is told, the page gives one to seeds, by their names."""
    return typed == "INT" and key in _SEEDS if told is None else bool(told)


def _grid(typed: str, step: Number | None, rounding: Number | None) -> Number | None:
    """What the page rounds numbers to: INT to steps, FLOAT to `round` and to as many digits as a step has."""
    if typed == "INT":
        return step if isinstance(step, int) and step > 1 else None
    if typed != "FLOAT":
        return None
    step = 0.5 if step is None or step <= 0 else step
    digit: float = 10.0 ** min(0, math.floor(math.log10(step)))
    if rounding is None or rounding <= 0:
        return digit if digit < 1 else None
    return max(rounding, digit)


def _number(value: object) -> int | float | None:
    """A finite number of at most 64 bits, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if -_MAX_INT <= value <= _MAX_INT else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _default(value: object) -> bool | int | float | str | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if _is_text(value, MAX_DEFAULT) else None
    return _number(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool) or _is_text(value, least=0) or _number(value) is not None


def _is_text(value: object, longest: int = MAX_NAME, *, least: int = 1) -> bool:
    """True for text of bounded length that UTF-8 can hold: unpaired surrogates cannot be stored."""
    if not isinstance(value, str) or not least <= len(value) <= longest:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
