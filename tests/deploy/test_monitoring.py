"""Rules and dashboard ask for what processes tell, and every alert says what to do: without any other program."""

import itertools
import re
from typing import Any

import promql_parser
import pytest
import yaml
from tests.support.monitoring import (
    MONITORING,
    OF_PROMETHEUS,
    OF_THE_SCRAPE,
    ROOT,
    Rule,
    alerts,
    board,
    groupings,
    module,
    queries,
    recorded,
    rules,
    selectors,
    told,
)

from comfy_api_service.domain.errors import TABLE
from comfy_api_service.telemetry import Metrics

EXPRESSIONS = [*((rule.name, rule.expression) for rule in rules()), *queries()]


def known() -> dict[str, frozenset[str]]:
    return {**told(), **recorded(), **OF_PROMETHEUS}


def test_generated_files_are_current() -> None:
    for name, write in module("generate").FILES.items():
        assert (MONITORING / name).read_text(encoding="utf-8") == write(), f"{name}: run `make docs`"


@pytest.mark.parametrize(("where", "text"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_expressions_ask_for_what_there_is(where: str, text: str) -> None:
    expression = promql_parser.parse(text)
    found = list(selectors(expression))
    assert found or text.startswith("vector("), where
    for one in found:
        assert one.name in known(), f"{where}: nobody tells {one.name}"
        assert one.named <= known()[one.name] | OF_THE_SCRAPE, f"{where}: {one.name} has no such label"
        if one.name.startswith("comfyui_"):
            _values_exist(one.name, one.labels)
    for labels, below in groupings(expression):
        there = frozenset[str]().union(*(known()[one.name] for one in below)) | OF_THE_SCRAPE
        assert labels <= there, f"{where}: nothing has {labels - there}"


def _values_exist(name: str, labels: Any) -> None:
    """Of labels that have all their values from the start."""
    metrics = Metrics()
    metrics.add_backend("comfyui-1")
    there = [
        sample.labels
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    ]
    for label in ("status", "outcome", "reason", "state", "kind", "use", "le"):
        if label in labels and there:
            assert labels[label] in {one[label] for one in there}, (name, label, labels[label])


def test_reasons_in_the_objectives_are_codes_of_jobs_and_the_page_has_all_of_them() -> None:
    ours = set(module("objectives").OURS)
    of_jobs = {code.value for code, info in TABLE.items() if info.of_job}
    assert ours < of_jobs
    page = (ROOT / "docs" / "SLO.md").read_text(encoding="utf-8")
    section = page.partition("## Whose fault")[2].partition("\n## ")[0]
    lines = {line.partition(":")[0]: set(re.findall(r"`([A-Z_]+)`", line)) for line in section.splitlines()}
    assert lines["- **Ours**"] == ours
    assert lines["- **The caller's**"] == of_jobs - ours


def test_the_page_of_objectives_says_what_is_measured() -> None:
    page = (ROOT / "docs" / "SLO.md").read_text(encoding="utf-8")
    for one in module("objectives").OBJECTIVES:
        assert f"| {one.name} | {one.promise} | {one.goal * 100:g} % |" in page, one.name


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.name)
def test_every_alert_says_what_it_means_and_what_to_do(rule: Rule) -> None:
    assert rule.labels["severity"] in {"critical", "warning"}
    assert rule.annotations["summary"].endswith(".")
    assert rule.annotations["description"].endswith(".")
    page, _, anchor = rule.annotations["runbook_url"].partition("#")
    assert anchor in {title.lower() for title in _entries((ROOT / page).read_text(encoding="utf-8"))}
    assert rule.name.lower().removesuffix("fast").removesuffix("slowly") == anchor


def _entries(page: str) -> dict[str, str]:
    """The runbook's entries of alerts."""
    parts = re.split(r"^### ", page, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts if part.startswith("Comfy")}


def test_every_entry_of_the_runbook_is_for_an_alert_and_is_whole() -> None:
    entries = _entries((ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8"))
    anchors = {rule.annotations["runbook_url"].partition("#")[2] for rule in alerts()}
    assert {title.lower() for title in entries} == anchors
    for title, text in entries.items():
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in text, f"{title} has no {part}"


def test_the_dashboard_is_of_one_datasource_and_its_panels_do_not_overlap() -> None:
    document = board()
    rows = [panel["title"] for panel in document["panels"] if panel["type"] == "row"]
    for wanted in ("Objectives", "Service", "Queue and fairness", "Backends", "Storage", "Webhooks"):
        assert wanted in rows
    assert [one["type"] for one in document["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_every_metric_of_the_service_is_on_the_dashboard_or_in_a_rule() -> None:
    asked = {one.name for _, text in EXPRESSIONS for one in selectors(promql_parser.parse(text))}
    of_ours = {name for name in told() if name.startswith("comfyui_") and not name.endswith("_count")}
    assert of_ours - asked == UNWATCHED


UNWATCHED = {
    "comfyui_upload_bytes_total",
    "comfyui_prompt_hook_duration_seconds_bucket",
    "comfyui_redis_requests_total",
    "comfyui_trace_spans_total",
    "comfyui_webhook_delivery_duration_seconds_bucket",
}
"""For questions that come up while looking."""


def test_prometheus_asks_the_processes_of_the_compose_file() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ports = {
        job["job_name"]: (found["names"], found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
    }
    assert ports == {
        "comfy-api": (["api"], 8000),
        "comfy-worker": (["worker"], int(services["worker"]["environment"]["METRICS_PORT"])),
    }
    assert {"api", "worker"} <= services.keys()
    for job in config["scrape_configs"]:
        assert job["relabel_configs"] == [{"target_label": "found_by", "replacement": "dns"}]
    assert config["rule_files"] == ["rules/*.yml"]


def test_targets_of_machines_are_in_files_that_are_there() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.machines.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        for found in job["file_sd_configs"]:
            for name in found["files"]:
                assert yaml.safe_load((MONITORING / name).read_text(encoding="utf-8"))
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    asked = set(re.findall(r'job="([^"]+)"', "\n".join(text for _, text in EXPRESSIONS)))
    assert asked <= jobs


def test_grafana_is_given_the_datasource_and_the_folder() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    assert [one["type"] for one in sources["datasources"]] == ["prometheus"]
    boards = yaml.safe_load((provisioning / "dashboards" / "comfy-api.yml").read_text(encoding="utf-8"))
    assert [one["type"] for one in boards["providers"]] == ["file"]
