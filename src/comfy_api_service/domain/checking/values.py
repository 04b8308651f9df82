"""The plain values of inputs: as ComfyUI would read them, within the bounds that it tells."""

import math
from collections.abc import Sequence
from typing import Any, Final

from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import kind_of
from comfy_api_service.domain.graph.loaders import KINDS, is_model_name, model_of
from comfy_api_service.domain.inventory import InputSpec, nearest

_MAX_INT: Final = 2**64
_LONGEST_NUMBER: Final = 64
_ALLOWED_SHOWN: Final = 20
_MODEL_SHOWN: Final = 200
_HINTS: Final = 10
"""Names that nearest ones are looked for, in one graph: each look takes a millisecond or so in long lists."""
_FEW: Final = 50


class Fault(Exception):
    """What is wrong with a value; its text stands in the answer."""

    def __init__(self, message: str, code: Code = Code.INVALID_GRAPH, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def names_model(class_name: str, input_name: str, value: object) -> bool:
    """True if the input is a loader's, and names a model file."""
    return (class_name, input_name) in KINDS or model_of(class_name, input_name, value) is not None


class Hints:
    """Names that resemble a wrong one."""

    def __init__(self) -> None:
        self._left = _HINTS
        self._told: dict[str, list[str]] = {}

    def nearest(self, name: str, candidates: Sequence[str]) -> list[str]:
        """At most three names that resemble it; none after ten different questions."""
        if name not in self._told and self._left > 0:
            self._left -= 1
            self._told[name] = list(nearest(name, candidates))
        return self._told.get(name, [])


class Values:
    """Checks values against the inputs' specifications; made anew for each graph."""

    def __init__(self) -> None:
        self._sets: dict[int, frozenset[Any]] = {}
        self._hints = Hints()

    def checked(
        self, class_name: str, input_name: str, spec: InputSpec, value: Any, *, lists_are_whole: bool
    ) -> Any:
        """The value as ComfyUI reads it. Raises Fault.

        `lists_are_whole` is false where an empty list may mean that the page fills it.
        """
        if spec.type in ("INT", "FLOAT"):
            number = _whole(value) if spec.type == "INT" else _float(value)
            check_bounds(spec, number)
            return number
        if spec.type == "STRING":
            if isinstance(value, str | int | float):
                return str(value)
            raise Fault("a text is needed")
        if spec.type == "BOOLEAN":
            if value is None or isinstance(value, str | int | float):
                return bool(value)
            raise Fault("true or false is needed")
        if spec.type == "COMBO" and spec.options is not None and (spec.options or lists_are_whole):
            self._check_choice(class_name, input_name, spec.options, value)
        return value

    def _check_choice(self, class_name: str, input_name: str, options: tuple[Any, ...], value: Any) -> None:
        if isinstance(value, str | int | float) and value in self._as_set(options):
            return
        is_model = names_model(class_name, input_name, value)
        if isinstance(value, str) and (is_model or is_model_name(value)):
            names = [option for option in options if isinstance(option, str)]
            raise Fault(
                "no backend has this model",
                Code.MODEL_NOT_FOUND,
                model=value[:_MODEL_SHOWN],
                kind=kind_of(class_name, input_name) or f"{class_name}.{input_name}",
                nearest=self._hints.nearest(value, names),
            )
        raise Fault(
            "the value is none of those that are allowed",
            allowed=list(options[:_ALLOWED_SHOWN]),
            allowed_count=len(options),
        )

    def _as_set(self, options: tuple[Any, ...]) -> frozenset[Any] | tuple[Any, ...]:
        if len(options) <= _FEW:
            return options
        known = self._sets.get(id(options))
        if known is None:
            known = self._sets[id(options)] = frozenset(options)
        return known


def check_bounds(spec: InputSpec, number: float) -> None:
    """Raises Fault if the number lies outside of the input's bounds."""
    if spec.minimum is not None and number < spec.minimum:
        raise Fault(f"{number:.15g} is less than {spec.minimum:.15g}", value=number, bound=spec.minimum)
    if spec.maximum is not None and number > spec.maximum:
        raise Fault(f"{number:.15g} is more than {spec.maximum:.15g}", value=number, bound=spec.maximum)


def _whole(value: object) -> int:
    """ComfyUI's `int()`: also of texts, of true, and of 20.7, which becomes 20."""
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST_NUMBER):
        try:
            number = int(value)
        except ValueError:
            pass
        else:
            if -_MAX_INT < number < _MAX_INT:
                return number
    raise Fault("a whole number is needed")


def _float(value: object) -> float:
    """ComfyUI's `float()`, without what JSON has no number for."""
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST_NUMBER):
        try:
            number = float(value)
        except ValueError:
            pass
        else:
            if math.isfinite(number):
                return number
    raise Fault("a number is needed")
