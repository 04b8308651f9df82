"""The files of deploy/monitoring, and what their expressions ask for."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import promql_parser
import yaml

from comfy_api_service.telemetry import Metrics

ROOT: Final = Path(__file__).parents[2]
MONITORING: Final = ROOT / "deploy" / "monitoring"
OF_PROMETHEUS: Final[Mapping[str, frozenset[str]]] = {
    "up": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate"}),
}
OF_THE_SCRAPE: Final = frozenset({"job", "instance", "found_by"})


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert (`name` is its own) or a recorded series."""

    name: str
    expression: str
    alert: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Selector:
    name: str
    labels: Mapping[str, str]
    """Those that are asked for by value."""
    named: frozenset[str]


def module(name: str) -> ModuleType:
    """A script of the folder."""
    sys.path.insert(0, str(MONITORING))
    try:
        spec = importlib.util.spec_from_file_location(name, MONITORING / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[name] = made
        spec.loader.exec_module(made)
        return made
    finally:
        sys.path.remove(str(MONITORING))


@cache
def rules(file: Path | None = None) -> tuple[Rule, ...]:
    """Of one file, or of all."""
    found = []
    for path in [file] if file else sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found += [
                Rule(
                    rule.get("alert") or rule["record"],
                    rule["expr"],
                    "alert" in rule,
                    rule.get("labels", {}),
                    rule.get("annotations", {}),
                )
                for rule in group["rules"]
            ]
    return tuple(found)


def alerts(file: Path | None = None) -> list[Rule]:
    return [rule for rule in rules(file) if rule.alert]


@cache
def board() -> dict[str, Any]:
    path = MONITORING / "grafana" / "dashboards" / "comfy-api.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Of the dashboard: the panel's title, and the expression with an interval in place of Grafana's variable."""
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


@cache
def told() -> Mapping[str, frozenset[str]]:
    """Every series' name that a process tells, with its labels."""
    metrics = Metrics()
    metrics.http_requests.labels("GET", "/ping", "200")
    registry = metrics.registry
    found: dict[str, frozenset[str]] = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        of_samples = frozenset[str]().union(*(sample.labels for sample in family.samples))
        labels = of_samples | frozenset(getattr(registry._names_to_collectors.get(name), "_labelnames", ()))
        if family.type == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels - {"le"}}
        else:
            found[name] = labels
    return found


@cache
def recorded() -> Mapping[str, frozenset[str]]:
    return {rule.name: frozenset({"slo"}) for rule in rules() if not rule.alert}


def selectors(expression: Any) -> Iterator[Selector]:
    """Every series that an expression asks for."""
    for node in _nodes(expression):
        if isinstance(node, promql_parser.VectorSelector):
            matchers = list(node.matchers.matchers)
            equal = {one.name: one.value for one in matchers if one.op == promql_parser.MatchOp.Equal}
            yield Selector(node.name or "", equal, frozenset(one.name for one in matchers))


def groupings(expression: Any) -> Iterator[tuple[frozenset[str], list[Selector]]]:
    """The labels that sums are kept by, and the series below them."""
    for node in _nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            yield frozenset(node.modifier.labels), list(selectors(node.expr))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, str):
            yield from _nodes(below)
    for argument in getattr(node, "args", None) or ():
        yield from _nodes(argument)
