"""Compose files as Compose reads them: with their variables filled in."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
_VARIABLE: Final = re.compile(r"\$(?:\$|\{(?P<name>[A-Z_0-9]+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\})")


class _Loader(yaml.SafeLoader):
    """Knows Compose's own tags; they only say how files are merged."""


def _untagged(loader: _Loader, _tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _untagged)


def load(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with `${NAME}`, `${NAME:-default}` and `${NAME:?message}` filled in.

    Raises `KeyError` if the last is not set.
    """
    parsed = yaml.load((DEPLOY / name).read_text(encoding="utf-8"), _Loader)
    found: dict[str, Any] = _filled(parsed, variables)
    return found


def variables_of(name: str) -> frozenset[str]:
    """Every variable that the file reads: in its words, or as a setting without a value."""
    text = "\n".join(
        line for line in (DEPLOY / name).read_text().splitlines() if not line.strip().startswith("#")
    )
    named = {match["name"] for match in _VARIABLE.finditer(text) if match["name"]}
    services = load(name, dict.fromkeys(named, "x"))["services"]
    bare = {
        key
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if value is None
    }
    return frozenset(named | bare)


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What the container's environment is when no setting without a value is set."""
    return {key: str(value) for key, value in service.get("environment", {}).items() if value is not None}


def handed(service: str, lines: Mapping[str, str]) -> dict[str, str]:
    """What the container's environment is with these lines in `.env`, and nothing in the shell."""
    found = load("compose.yaml", lines)["services"][service]
    given: dict[str, str] = {}
    for file in found.get("env_file", ()):
        assert file == {"path": ".env", "required": False}
        given |= lines
    for name, value in found["environment"].items():
        if value is not None:
            given[name] = str(value)
        elif name in lines:
            given[name] = lines[name]
        else:  # without a value anywhere it is unset, whatever a file says
            given.pop(name, None)
    return given


def own(services: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The services that run this project's image."""
    return ((name, service) for name, service in services.items() if "build" in service)


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _word(match, variables), value)
    return value


def _word(match: "re.Match[str]", variables: Mapping[str, str]) -> str:
    name = match["name"]
    if name is None:
        return "$"
    if name in variables:
        return variables[name]
    if match["kind"] == "?":
        raise KeyError(name)
    return match["word"] or ""
