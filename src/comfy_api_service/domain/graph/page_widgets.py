"""The values of a node's widgets, by the names of its inputs.

The page saves them as a list without names: which value belongs to which input follows from the order of the
class's inputs and from the further widgets that the page puts between them. A list that does not fit exactly is
refused: one value too few or too many, and each value after it could stand in another's place.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from comfy_api_service.domain.graph.page_document import PageNode, Reason
from comfy_api_service.domain.graph.page_texts import MAX_TEXT, has_choices, unescaped, without_comments

if TYPE_CHECKING:  # the inventory is built upon this package
    from comfy_api_service.domain.inventory import InputSpec, NodeClass

WIDGETS: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_PAGES_OWN: Final = frozenset(
    {
        "AUDIOUPLOAD", "AUDIO_RECORD", "AUDIO_UI", "CHART", "COLOR", "GALLERIA", "IMAGECOMPARE", "IMAGEUPLOAD",
        "LOAD_3D", "LOAD_3D_ANIMATION", "MARKDOWN", "PREVIEW_3D", "PREVIEW_3D_ANIMATION", "TEXTAREA", "WEBCAM",
    }
)  # fmt: skip
"""Types whose widgets make their value in the page."""
_LINKS_ALONE: Final = frozenset({"COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3"})
_FURTHER: Final = {"image": 1, "video": 1, "audio": 2}
"""By the kind of upload: how many widgets of the page's own (a button, a player) follow those of the inputs."""
_PREVIEWS: Final = {"PreviewAny": 3, "SaveGLB": 1}
"""By class: likewise, for what the node shows after a run."""
_MOST: Final = 2048
"""The page's bound for numbers that have none."""
_DIGITS: Final = 10


class NotExactError(Exception):
    """A node that cannot be converted exactly; says why, and at which input."""

    def __init__(self, reason: Reason, message: str, input_name: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.input = input_name


def has_widget(spec: "InputSpec") -> bool:
    return spec.type in WIDGETS and not spec.link_only


def grows(spec: "InputSpec") -> bool:
    """True for an input that stands for any number of sockets, named `input.name`."""
    return spec.type == "COMFY_AUTOGROW_V3"


def check_inputs(described: "NodeClass") -> None:
    """Raises NotExactError if the class has an input of which the inventory does not tell the widgets."""
    for name, spec in described.inputs.items():
        dynamic = spec.type.startswith("COMFY_") and spec.type.endswith("_V3")
        if spec.type in _PAGES_OWN or (dynamic and spec.type not in _LINKS_ALONE):
            raise NotExactError(
                Reason.DYNAMIC_INPUT, f"The page alone knows what the input `{name}` is sent as.", name
            )


def values_of(node: PageNode, described: "NodeClass") -> dict[str, Any]:
    """Input → saved value, for each input that has a widget. Raises NotExactError."""
    if isinstance(node.values, Mapping):
        return _by_name(node.values, described)
    places = _places(described)
    values = node.values
    if 0 < len(values) - len(places) <= _further(described) and all(map(_is_idle, values[len(places) :])):
        values = values[: len(places)]
    if len(values) != len(places):
        older = _older_places(described)
        if older is None or len(values) != len(older):
            raise NotExactError(
                Reason.WIDGETS, f"The node was saved with {len(values)} values for {len(places)} widgets."
            )
        places = older
    known = {name for name, spec in described.inputs.items() if has_widget(spec)}
    return {name: value for name, value in zip(places, values, strict=True) if name in known}


def _by_name(values: Mapping[str, Any], described: "NodeClass") -> dict[str, Any]:
    known = {name for name, spec in described.inputs.items() if has_widget(spec)}
    if values.keys() != known:
        raise NotExactError(
            Reason.WIDGETS, "The names of the saved values are not those of the node's widgets."
        )
    return {name: values[name] for name in described.inputs if name in known}


def _places(described: "NodeClass") -> list[str | None]:
    """What each saved value is for: an input, or (None) a further widget behind one."""
    places: list[str | None] = []
    for name, spec in described.inputs.items():
        if has_widget(spec):
            places += [name, *[None] * _behind(spec)]
    return places


def _older_places(described: "NodeClass") -> list[str | None] | None:
    """The places of an older page, which kept one for each input that takes links alone.

    None if a widget has others behind it: then today's page itself loses its way.
    """
    told = {name: spec for name, spec in described.inputs.items() if has_widget(spec) or spec.link_only}
    return None if any(_behind(spec) for spec in told.values()) else list(told)


def _behind(spec: "InputSpec") -> int:
    """How many further widgets follow: what happens to the value after a run, and for lists a filter."""
    if not spec.control or spec.type not in ("INT", "FLOAT", "COMBO"):
        return 0
    return 2 if spec.type == "COMBO" else 1


def _further(described: "NodeClass") -> int:
    """How many widgets at most the page adds at the end, none of which is sent to the node."""
    uploads = [_FURTHER[spec.upload] for spec in described.inputs.values() if spec.upload in _FURTHER]
    return _PREVIEWS.get(described.name, 0) + max(uploads, default=0)


def _is_idle(value: object) -> bool:
    """True for what a button, a player or a preview is saved as."""
    if isinstance(value, Mapping):
        return value.get("name") == "upload"
    return value is None or isinstance(value, bool) or value in ("", "image")


def sent(name: str, value: object, spec: "InputSpec") -> Any:
    """The value as the page posts it. Raises NotExactError for one that its widget cannot have."""
    if not _fits(value, spec):
        raise NotExactError(
            Reason.VALUE, f"The saved value of `{name}` is not one of type {spec.type}.", name
        )
    if spec.type == "STRING" and len(str(value)) > MAX_TEXT:
        raise NotExactError(Reason.VALUE, f"The text of `{name}` is longer than {MAX_TEXT} characters.", name)
    if spec.type == "STRING" and spec.dynamic:
        return _rewritten(name, str(value))
    return {"__value__": value} if isinstance(value, list) else value


def check_given(name: str, value: Any, spec: "InputSpec") -> None:
    """Raises NotExactError for a number that the page would change when a primitive gives it to the widget."""
    if spec.type not in ("INT", "FLOAT") or not _is_number(value):
        return
    least = 0 if spec.minimum is None else spec.minimum
    most = _MOST if spec.maximum is None else spec.maximum
    if not least <= value <= most or not _on_grid(value, least, spec):
        raise NotExactError(Reason.VALUE, f"The page would round or bound the value given to `{name}`.", name)


def _on_grid(value: Any, least: Any, spec: "InputSpec") -> bool:
    if spec.type == "INT":
        return isinstance(value, int) and (value - least) % (spec.grid or 1) == 0
    return spec.grid is None or round(round(value / spec.grid) * spec.grid, _DIGITS) == value


def _fits(value: object, spec: "InputSpec") -> bool:
    match spec.type:
        case "INT" | "FLOAT":
            return _is_number(value)
        case "STRING":
            return isinstance(value, str)
        case "BOOLEAN":
            return isinstance(value, bool)
    return _is_choice(value, spec)


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_choice(value: object, spec: "InputSpec") -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    kind = _kind(value)
    return kind is not None and (not spec.options or any(_kind(option) is kind for option in spec.options))


def _kind(value: object) -> type | None:
    """JSON's type of a single value: it has one for all numbers."""
    if isinstance(value, str | bool):
        return type(value)
    return float if _is_number(value) else None


def _rewritten(name: str, text: str) -> str:
    """The text without comments and escapes, as the page sends it."""
    text = without_comments(text)
    if has_choices(text):
        raise NotExactError(
            Reason.RANDOM_TEXT, f"The page chooses words of `{name}` at random: write braces as `\\{{`.", name
        )
    return unescaped(text)
