"""Faults of fields, as pydantic finds them, in the words of this API: field, message, value, bound.

A value is shown shortened, and never a prompt's, nor that of a field that should not be there.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from comfy_api_service.domain.errors import FieldError, ValidationFailed

_NEVER_SHOWN: Final = frozenset({"prompt", "negative_prompt", "password", "refresh_token", "image", "mask"})
_KEY: Final = "[key]"
"""pydantic's last part of the location of an object's key."""
_SHOWN_CHARACTERS: Final = 64
_FAULTS_SHOWN: Final = 100

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}
_AT_LEAST_ONE: Final[Mapping[str, str]] = {
    "string_too_short": "must not be empty",
    "too_short": "must have at least one entry",
}
_BOUNDS: Final = (
    "ge",
    "gt",
    "le",
    "lt",
    "multiple_of",
    "min_length",
    "max_length",
    "expected",
    "pattern",
)


def validation_failed(errors: Iterable[Mapping[str, Any]], *, skip: int = 0) -> ValidationFailed:
    """From pydantic's `errors()`; the first `skip` parts of each location are not shown."""
    faults = [fault_of(error, skip=skip) for error in errors]
    return ValidationFailed(faults[:_FAULTS_SHOWN])


def fault_of(error: Mapping[str, Any], *, skip: int = 0) -> FieldError:
    location = error["loc"][skip:]
    kind = error["type"]
    context = error.get("ctx") or {}
    of_key = location[-1:] == (_KEY,)
    if of_key:
        location = location[:-2]  # what is at fault has no name yet: the key stands as the value
    field = ".".join(str(part)[:_SHOWN_CHARACTERS] for part in location) or "body"
    private = location[:1] != ("labels",) and not _NEVER_SHOWN.isdisjoint(location)
    hidden = private or kind in ("missing", "extra_forbidden")
    message = _message(kind, context, str(error.get("msg", "")), private=private)
    return FieldError(
        field,
        f"has a key that {message}" if of_key else message,
        None if hidden else shown(error.get("input")),
        next((shown(context[name], limit=2000) for name in _BOUNDS if name in context), None),
    )


def _message(kind: str, context: Mapping[str, Any], otherwise: str, *, private: bool) -> str:
    if kind == "string_pattern_mismatch" and private:
        return "must have a visible character, and no NUL"
    template = _AT_LEAST_ONE.get(kind) if context.get("min_length") == 1 else _MESSAGES.get(kind)
    if template is None:
        return otherwise.removeprefix("Value error, ")
    return template.format_map(context)


def shown(value: Any, *, limit: int = _SHOWN_CHARACTERS) -> Any:
    """A value as an error may show it: scalars only, and short."""
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)[:limit] + "…"
    if isinstance(value, str):
        text = value if len(value) <= limit else value[:limit] + "…"
        return text.encode("utf-8", "replace").decode()
    return None
