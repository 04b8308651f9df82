"""Writes the rules that follow from the objectives, all rules for Kubernetes, and the dashboard.

`python deploy/monitoring/generate.py`
"""

import json
from pathlib import Path
from typing import Any, Final

import dashboard
import objectives
import yaml

HERE: Final = Path(__file__).parent


class _Readable(yaml.SafeDumper):
    """Expressions of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def rules() -> str:
    written: str = yaml.dump(objectives.rules(), Dumper=_Readable, sort_keys=False, width=110)
    return f"# Written by generate.py from objectives.py; docs/SLO.md says why.\n{written}"


def in_kubernetes() -> str:
    """All rules as one object for Prometheus' operator."""
    groups = yaml.safe_load((HERE / "rules" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    groups += objectives.rules()["groups"]
    found = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "comfy-api"},
        "spec": {"groups": groups},
    }
    written: str = yaml.dump(found, Dumper=_Readable, sort_keys=False, width=110)
    return f"# Written by deploy/monitoring/generate.py from its rules.\n{written}"


def board() -> str:
    return json.dumps(dashboard.dashboard(), indent=1, ensure_ascii=False) + "\n"


FILES: Final[dict[str, Any]] = {
    "rules/objectives.yml": rules,
    "../kubernetes/components/monitoring/rules.yaml": in_kubernetes,
    "grafana/dashboards/comfy-api.json": board,
}

if __name__ == "__main__":
    for name, write in FILES.items():
        (HERE / name).write_text(write(), encoding="utf-8")
