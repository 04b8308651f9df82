"""Parameters of a workflow as options of a command that does not know them before it has asked the service.

`--name value`, `--name=value`, `--flag` and `--no-flag` for what is true or false; hyphens stand for `_`. What the
command itself takes goes before; `--param name=value` reaches a parameter of such a name.
"""

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand

from comfy_api_service.cli.faults import ExitCode, Fault

META: Final = "comfy_api_service.given"
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class Given:
    """An option as it was written; `value` None if it stood alone."""

    name: str
    value: str | None

    @property
    def option(self) -> str:
        return f"--{self.name}"


class WithParameters(TyperCommand):
    """Puts options that it does not have aside, in `ctx.meta[META]`, instead of refusing them."""

    takes_parameters = True

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        own, given = divided(args, {name for one in self.get_params(ctx) for name in options_of(one)})
        ctx.meta[META] = given
        return super().parse_args(ctx, own)


def options_of(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def divided(args: Sequence[str], known: Collection[str]) -> tuple[list[str], list[Given]]:
    """What the command has itself, and the rest: an option takes the word behind it unless that is one too."""
    own: list[str] = []
    given: list[Given] = []
    at = 0
    while at < len(args):
        word = args[at]
        at += 1
        name, equals, value = word.partition("=")
        if word == "--":
            own += args[at - 1 :]
            break
        if not word.startswith("--") or name in known:
            own.append(word)
        elif equals:
            given.append(Given(name[2:], value))
        elif at < len(args) and not args[at].startswith("--") and args[at] not in known:
            given.append(Given(name[2:], args[at]))
            at += 1
        else:
            given.append(Given(name[2:], None))
    return own, given


def explicit(given: Sequence[str]) -> list[Given]:
    """Those of `--param name=value`."""
    found = []
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise Fault(
                f"--param {one} has no value.", "Write it as --param name=value.", exit_code=ExitCode.USAGE
            )
        found.append(Given(name, value))
    return found


def inputs_from(
    parameters: Sequence[Mapping[str, Any]], given: Sequence[Given], workflow_id: str, own: Collection[str]
) -> dict[str, Any]:
    """Values by name, of each parameter's type; pictures still as they were written.

    Raises `Fault` with everything that is wrong at once. `own`: options of the command itself.
    """
    known = {str(one["name"]): one for one in parameters}
    faults: list[str] = []
    values: dict[str, Any] = {}
    for one in given:
        name, denied = _name(one, known)
        if name is None:
            faults.append(_unknown(one, known, own))
            continue
        if name in values:
            faults.append(f"{one.option}: is given twice")
            continue
        try:
            values[name] = False if denied else _typed(known[name], one.value)
        except ValueError as error:
            faults.append(f"{one.option}: {error}")
            values[name] = None
    faults += [
        f"--{name}: is required" + (f": {one['description']}" if one.get("description") else "")
        for name, one in known.items()
        if one.get("required") and one.get("default") is None and name not in values
    ]
    if faults:
        raise Fault(
            f"{workflow_id} cannot be run with these parameters.",
            f"`comfy-api workflows show {workflow_id}` lists what it takes.",
            lines=tuple(faults),
            exit_code=ExitCode.USAGE,
        )
    return values


def _name(one: Given, known: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The parameter that is meant, and whether it is denied (`--no-…`)."""
    name = one.name.replace("-", "_")
    if name in known:
        return name, False
    positive = name.removeprefix("no_")
    if positive != name and one.value is None and known.get(positive, {}).get("type") == "boolean":
        return positive, True
    return None, False


def _unknown(one: Given, known: Mapping[str, Any], own: Collection[str]) -> str:
    options = sorted({f"--{name}" for name in known} | {option for option in own if option.startswith("--")})
    near = difflib.get_close_matches(one.option, options, n=3)
    return f"{one.option}: the workflow has no such parameter" + (
        f" (nearest: {', '.join(near)})" if near else ""
    )


def _typed(parameter: Mapping[str, Any], value: str | None) -> Any:
    """Raises `ValueError` with what the value must be."""
    kind = str(parameter["type"])
    if kind == "boolean":
        return _boolean(value)
    if value is None:
        raise ValueError("has no value")
    reading: Mapping[str, tuple[Callable[[str], Any], str]] = {
        "integer": (int, "must be an integer"),
        "seed": (int, "must be an integer"),
        "number": (_finite, "must be a number"),
    }
    if kind not in reading:
        return value
    read, fault = reading[kind]
    try:
        return read(value)
    except ValueError:
        raise ValueError(f"{fault}, not {value!r}") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _boolean(value: str | None) -> bool:
    word = "true" if value is None else value.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"must be true or false, not {value!r}")
