"""The alerts, held against made-up series by Prometheus' own tool: each fires in its bad case, all are silent in a
good week.

promtool is not a Python package: it is looked for on PATH and in PROMTOOL. docs/OPERATIONS.md, "Monitoring", says how
it is had.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.incidents import BURNS, DAY, HOUR, INCIDENTS, OBJECTIVES, WEEK, World, good_week, quiet
from tests.support.monitoring import MONITORING, alerts, module

pytestmark = pytest.mark.timeout(600)  # promtool goes through a week, minute by minute

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is neither on PATH nor in PROMTOOL: docs/OPERATIONS.md, Monitoring"
)
PACE = module("objectives")
RULES = sorted((MONITORING / "rules").glob("*.yml"))


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def held(folder: Path, files: Sequence[Path], *cases: dict[str, Any], minutes: int = 1) -> None:
    """Cases in promtool's form, evaluated each so many minutes: what was recorded then stands for so long."""
    order: list[str] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        order += [group["name"] for group in yaml.safe_load(text)["groups"]]
        (folder / path.name).write_text(text.replace("* 60 >=", f"* {minutes * 60} >="))
    document = {
        "rule_files": [path.name for path in files],
        "evaluation_interval": f"{minutes}m",
        "group_eval_order": order,  # by chance otherwise: what is recorded may come after the alert that reads it
        "tests": list(cases),
    }
    path = folder / "cases.yml"
    path.write_text(yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), width=10**9))
    promtool("test", "rules", path)


def case(world: World, minutes: int, *expected: tuple[int, str, bool]) -> dict[str, Any]:
    """`expected`: at that minute the alert fires, or not."""
    return {
        "interval": "1m",
        "input_series": world.written(minutes),
        "promql_expr_test": [
            {
                "expr": f'group by (alertname) (ALERTS{{alertstate="firing",alertname=~"{alert}"}})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if fires else [],
            }
            for minute, alert, fires in expected
        ],
    }


def test_every_alert_has_a_bad_case() -> None:
    assert {incident.alert for incident in INCIDENTS} == {rule.name for rule in alerts()}


@needs_promtool
def test_rules_and_configurations_are_good(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", *RULES)
    for name in ("prometheus.yml", "prometheus.machines.yml"):
        promtool("check", "config", MONITORING / name)
    cluster = yaml.safe_load((MONITORING / "prometheus.kubernetes.yml").read_text(encoding="utf-8"))
    for job in cluster["scrape_configs"]:  # Debian's build does not know them
        assert [found["role"] for found in job.pop("kubernetes_sd_configs")] == ["pod"]
    (tmp_path / "cluster.yml").write_text(yaml.safe_dump(cluster))
    promtool("check", "config", "--syntax-only", tmp_path / "cluster.yml")


@needs_promtool
@pytest.mark.parametrize("file", RULES, ids=lambda path: path.stem)
def test_each_alert_fires_in_its_bad_case_and_not_before(tmp_path: Path, file: Path) -> None:
    of_file = {rule.name for rule in alerts(file)}
    cases = []
    for incident in INCIDENTS:
        if incident.alert in of_file:
            world = quiet()
            incident.change(world, incident.begin)
            told = (incident.begin - 1, incident.alert, False), (incident.by, incident.alert, True)
            cases.append(case(world, incident.by, *told))
    held(tmp_path, [file], *cases, minutes=5 if file.stem == "objectives" else 1)


def met(expression: str, minute: int, slo: str, yes: bool) -> dict[str, Any]:
    """Whether the condition holds at that minute."""
    return {
        "expr": f"group by (slo) ({expression})",
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{slo="{slo}"}}', "value": 1}] if yes else [],
    }


@needs_promtool
@pytest.mark.parametrize("window", BURNS)
def test_each_window_of_an_objectives_alert_finds_what_the_other_does_not(
    tmp_path: Path, window: str
) -> None:
    """All objectives burn at once; the alerts fire by that window alone, and end soon after what they are about."""
    burn = BURNS[window]
    pace = 10 if window.endswith("d") else 5
    [(how, pair, least)] = [
        found
        for found in (
            ("BurnsFast", PACE.FAST, PACE.LEAST_FAST),
            ("BurnsSlowly", PACE.SLOW, PACE.LEAST_SLOW),
        )
        if window in [long for _, long, _ in found[1]]
    ]
    expected: list[tuple[int, str, bool]] = []
    why: list[dict[str, Any]] = []
    for one in PACE.OBJECTIVES:
        told = one.alert + how
        expected += [(burn.begin, told, False), (burn.end, told, True), (burn.over, told, False)]
        for times, long, short in pair:
            burns = PACE._burns(one, times, long, short, least).replace("* 60 >=", f"* {pace * 60} >=")
            why.append(met(burns, burn.end, one.name, long == window))
            if long == window:  # it is the short one that ends it
                ratio = f'comfyui:slo_errors:ratio{long}{{slo="{one.name}"}}'
                why.append(met(f"{ratio} > {times * one.budget:g}", burn.over, one.name, yes=True))
    found = case(burn.world({one.name: one.budget for one in PACE.OBJECTIVES}), burn.over, *expected)
    found["promql_expr_test"] += why
    held(tmp_path, [MONITORING / "rules" / "objectives.yml"], found, minutes=pace)


def test_every_objective_burns_by_each_window() -> None:
    assert OBJECTIVES.keys() == {one.name for one in PACE.OBJECTIVES}
    assert BURNS.keys() == {long for _, long, _ in (*PACE.FAST, *PACE.SLOW)}


@needs_promtool
@pytest.mark.parametrize(
    ("requests", "jobs", "minutes"), [(300.0, 60.0, WEEK), (3.0, 0.5, 2 * DAY)], ids=["busy", "hardly used"]
)
def test_a_good_week_is_silent(tmp_path: Path, requests: float, jobs: float, minutes: int) -> None:
    week = case(good_week(requests=requests, jobs=jobs), minutes)
    week["promql_expr_test"] = [
        {
            "expr": f'group by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{minutes}m]))',
            "eval_time": f"{minutes}m",
            "exp_samples": [],
        },
        {  # that there was something to find
            "expr": f'max_over_time(comfyui:slo_bad:rate5m{{slo="availability"}}[{minutes}m]) > bool 0',
            "eval_time": f"{minutes}m",
            "exp_samples": [{"labels": '{slo="availability"}', "value": 1}],
        },
    ]
    held(tmp_path, RULES, week, minutes=5)


@needs_promtool
def test_a_handful_of_errors_at_night_wakes_nobody(tmp_path: Path) -> None:
    """Four of ten requests in an hour: far beyond the budget's pace, and nothing to get up for."""
    world = World()
    of = 'endpoint="/api/v1/jobs",method="POST",instance="api-1:8000",job="comfy-api"'
    world.gains(f'comfyui_http_requests_total{{code="202",{of}}}', lambda minute: float(minute % 10 == 0))
    world.gains(
        f'comfyui_http_requests_total{{code="503",{of}}}',
        lambda minute: float(minute in range(4 * HOUR, 4 * HOUR + 8, 2)),
    )
    silent = [(minute, "ComfyAvailability.*", False) for minute in range(4 * HOUR, 6 * HOUR, 5)]
    held(tmp_path, RULES[1:], case(world, 6 * HOUR, *silent))
