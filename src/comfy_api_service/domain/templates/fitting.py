"""Whether a template fits together, and a value its parameter: every fault at once, by its path."""

import math
import re
from typing import Any, Final

from comfy_api_service.domain.errors import FieldError, ValidationFailed
from comfy_api_service.domain.graph import Graph, is_link
from comfy_api_service.domain.graph.form import inputs_of
from comfy_api_service.domain.templates.template import Parameter, ParameterType, Template

PARAMETERS_MAX: Final = 100
TARGETS_MAX: Final = 32
CHOICES_MAX: Final = 1000
TEXT_MAX: Final = 20_000
"""Characters of a string that fills a parameter."""
DESCRIPTION_MAX: Final = 1000
SEED_MAX: Final = 2**64 - 1
SEED_RANDOM: Final = -1
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
Fault = tuple[str, str]
"""Where, and what."""


def fitting(template: Template) -> Template:
    """The template itself. Raises `ValidationFailed` with everything that does not fit together in it."""
    faults: list[FieldError] = []
    if len(template.parameters) > PARAMETERS_MAX:
        faults.append(FieldError("parameters", f"at most {PARAMETERS_MAX}"))
    names = [parameter.name for parameter in template.parameters]
    for index, parameter in enumerate(template.parameters[:PARAMETERS_MAX]):
        at = f"parameters.{index}"
        if names.index(parameter.name) != index:
            faults.append(FieldError(f"{at}.name", "the name is taken by an earlier parameter"))
        faults += [FieldError(f"{at}.{where}", what) for where, what in _misfits(parameter, template.graph)]
    outputs = [output.name for output in template.outputs]
    for index, output in enumerate(template.outputs):
        at = f"outputs.{index}"
        if not _NAME.fullmatch(output.name) or outputs.index(output.name) != index:
            faults.append(FieldError(f"{at}.name", "must be a name of its own: small letters, digits, _"))
        if output.node not in template.graph:
            faults.append(FieldError(f"{at}.node", "the graph has no such node"))
    if faults:
        raise ValidationFailed(faults)
    return template


def _misfits(parameter: Parameter, graph: Graph) -> list[Fault]:
    found = [*_of_name(parameter), *_of_targets(parameter, graph), *_of_type(parameter)]
    if parameter.default is not None and not found:
        fault = fault_of(parameter, parameter.default)
        if fault is not None:
            found.append(("default", fault))
    return found


def _of_name(parameter: Parameter) -> list[Fault]:
    found = []
    if not _NAME.fullmatch(parameter.name):
        found.append(("name", "must be small letters, digits and _, beginning with a letter, at most 64"))
    if len(parameter.description) > DESCRIPTION_MAX:
        found.append(("description", f"at most {DESCRIPTION_MAX} characters"))
    return found


def _of_targets(parameter: Parameter, graph: Graph) -> list[Fault]:
    found = []
    if not 1 <= len(parameter.targets) <= TARGETS_MAX:
        found.append(("targets", f"must be 1 to {TARGETS_MAX} inputs of nodes"))
    for index, target in enumerate(parameter.targets[:TARGETS_MAX]):
        node = graph.get(target.node)
        if node is None:
            found.append((f"targets.{index}.node", "the graph has no such node"))
        elif is_link(inputs_of(node).get(target.input)):
            found.append((f"targets.{index}.input", "the input is linked to another node"))
        elif target.input not in inputs_of(node):
            found.append((f"targets.{index}.input", "the node has no such input"))
    return found


def _of_type(parameter: Parameter) -> list[Fault]:
    found = []
    if (parameter.type is ParameterType.ENUM) != bool(parameter.choices):
        found.append(("choices", "an enum has them, and nothing else"))
    if len(parameter.choices or ()) > CHOICES_MAX:
        found.append(("choices", f"at most {CHOICES_MAX}"))
    if (parameter.type is ParameterType.MODEL) != (parameter.model_kind is not None):
        found.append(("model_kind", "a model has one, and nothing else"))
    low, high = parameter.minimum, parameter.maximum
    numeric = parameter.type in (ParameterType.INTEGER, ParameterType.NUMBER)
    if (low is not None or high is not None) and not numeric:
        found.append(("minimum", "only numbers have bounds"))
    if low is not None and high is not None and low > high:
        found.append(("maximum", "must not be below the minimum"))
    return found


def fault_of(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with a value for this parameter; None if nothing is."""
    match parameter.type:
        case ParameterType.BOOLEAN:
            return None if type(value) is bool else "must be true or false"
        case ParameterType.INTEGER | ParameterType.NUMBER:
            return _fault_of_number(parameter, value)
        case ParameterType.SEED:
            fits = type(value) is int and SEED_RANDOM <= value <= SEED_MAX
            return None if fits else "must be an integer from 0 to 2⁶⁴-1, or -1 for a random one"
        case ParameterType.ENUM:
            choices = parameter.choices or ()
            if isinstance(value, str) and value in choices:
                return None
            shown = ", ".join(choices[:20]) + (", …" if len(choices) > 20 else "")
            return f"must be one of: {shown}"
        case _:
            if not isinstance(value, str):
                return "must be a string"
            if parameter.type is not ParameterType.IMAGE and len(value) > TEXT_MAX:
                return f"must have at most {TEXT_MAX} characters"
            return "must not be empty" if not value and parameter.type is not ParameterType.STRING else None


def _fault_of_number(parameter: Parameter, value: Any) -> str | None:
    whole = parameter.type is ParameterType.INTEGER
    if type(value) not in (int, float) or not math.isfinite(value) or (whole and value != int(value)):
        return "must be an integer" if whole else "must be a number"
    if parameter.minimum is not None and value < parameter.minimum:
        return f"must be at least {parameter.minimum}"
    if parameter.maximum is not None and value > parameter.maximum:
        return f"must be at most {parameter.maximum}"
    return None
