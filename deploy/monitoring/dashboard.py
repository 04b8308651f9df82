"""The Grafana dashboard: rows of panels, each a few queries. `generate.py` writes it to grafana/dashboards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from objectives import OBJECTIVES

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: legend and expression. `bound` is drawn as a line."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    says: str = ""
    bound: float | None = None
    stacked: bool = False
    top: float | None = None


def _quantile(percent: int, metric: str, labels: str = "", by: str = "") -> str:
    within = f"{{{labels}}}" if labels else ""
    kept = f"{by}, le" if by else "le"
    return f"histogram_quantile({percent / 100:g}, sum by ({kept}) (rate({metric}_bucket{within}[$__rate_interval])))"


def _quantiles(metric: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    return tuple((f"p{percent}", _quantile(percent, metric, labels)) for percent in (50, 95, 99))


def _rate(metric: str, by: str = "", labels: str = "") -> str:
    within = f"{{{labels}}}" if labels else ""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{within}[$__rate_interval]))"


SUBMISSION: Final = 'endpoint="/api/v1/jobs",method="POST"'
SUCCEEDED: Final = 'status="succeeded"'
VRAM_FREE: Final = 'comfyui_backend_memory_bytes{kind="vram_free"}'
VRAM_TOTAL: Final = 'comfyui_backend_memory_bytes{kind="vram_total"}'
LOADS: Final = "comfyui_backend_model_loads_total"
NOT_WELL: Final = 'status!="ok"'
ASKED: Final = 'endpoint!~"/|/ping|/health.*|/metrics"'

ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Objectives",
        (
            *(
                Panel(
                    one.name,
                    (("", f'1 - comfyui:slo_errors:ratio3d{{slo="{one.name}"}}'),),
                    unit="percentunit",
                    width=4,
                    kind="stat",
                    says=f"Share of {one.promise}, over three days; at least {one.goal * 100:g} % is promised.",
                    bound=one.goal,
                )
                for one in OBJECTIVES
            ),
            Panel(
                "alerts that fire",
                (("", 'count(ALERTS{alertstate="firing",alertname=~"Comfy.*"}) or vector(0)'),),
                width=4,
                kind="stat",
                bound=1,
                says="docs/RUNBOOK.md has an entry for each.",
            ),
            Panel(
                "times the budget, over an hour",
                (
                    (
                        "{{slo}}",
                        "comfyui:slo_errors:ratio1h / on (slo) comfyui:slo_budget:ratio",
                    ),
                ),
                width=24,
                bound=14.4,
                says="1 spends a month's budget in a month; 14.4 wakes somebody.",
            ),
        ),
    ),
    (
        "Service",
        (
            Panel(
                "requests a second, by status",
                (("{{code}}", _rate("comfyui_http_requests_total", "code", ASKED)),),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "time to answer a submission",
                _quantiles("comfyui_http_request_duration_seconds", SUBMISSION),
                unit="s",
                bound=0.25,
            ),
            Panel(
                "requests a second, by operation",
                (
                    (
                        "{{method}} {{endpoint}}",
                        f"topk(10, {_rate('comfyui_http_requests_total', 'method, endpoint', ASKED)})",
                    ),
                ),
                unit="reqps",
            ),
            Panel(
                "open requests and sockets",
                (
                    ("requests", "sum(comfyui_http_requests_in_progress)"),
                    ("WebSockets", "sum(comfyui_websocket_connections)"),
                ),
            ),
            Panel(
                "refused by limits, and credentials",
                (
                    ("{{limit}}", _rate("comfyui_requests_limited_total", "limit")),
                    ("no good credential", _rate("comfyui_credentials_refused_total")),
                    ("logins {{outcome}}", _rate("comfyui_logins_total", "outcome")),
                ),
                unit="reqps",
            ),
            Panel(
                "graphs and prompts",
                (
                    ("graphs {{outcome}}", _rate("comfyui_graphs_checked_total", "outcome")),
                    ("prompts {{outcome}}", _rate("comfyui_prompt_rules_total", "outcome")),
                ),
                unit="reqps",
            ),
        ),
    ),
    (
        "Queue and fairness",
        (
            Panel(
                "jobs a second",
                (
                    ("accepted", _rate("comfyui_jobs_created_total")),
                    ("{{status}}", _rate("comfyui_jobs_total", "status")),
                ),
                unit="ops",
            ),
            Panel(
                "waiting, by tier",
                (("{{tier}}", "max by (tier) (comfyui_queue_depth)"),),
                stacked=True,
            ),
            Panel(
                "oldest that waits, and on backends",
                (
                    ("age of the oldest, seconds", "max(comfyui_queue_oldest_seconds)"),
                    ("jobs on backends", "max(comfyui_jobs_in_progress)"),
                ),
            ),
            Panel(
                "wait for a backend",
                _quantiles("comfyui_job_wait_seconds"),
                unit="s",
                bound=120,
                says="p99 far above p50 with free backends: an account waits for its own cap, or a model is rare.",
            ),
            Panel("acceptance to result", _quantiles("comfyui_job_duration_seconds"), unit="s"),
            Panel(
                "failures, by reason",
                (("{{reason}}", f"{_rate('comfyui_job_failures_total', 'reason')} > 0"),),
                unit="ops",
                stacked=True,
            ),
        ),
    ),
    (
        "Backends",
        (
            Panel(
                "state",
                (("{{backend}}", "max by (backend) (comfyui_backend_up)"),),
                kind="state",
                top=1,
                says="1: it takes work.",
            ),
            Panel(
                "busy",
                (("{{backend}}", "max by (backend) (comfyui_backend_busy_ratio)"),),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "model loads of 100 jobs",
                (
                    (
                        "loads",
                        f"100 * {_rate(LOADS)} / {_rate('comfyui_jobs_total', labels=SUCCEEDED)}",
                    ),
                ),
                says="Many: more models are asked for than backends can hold.",
            ),
            Panel(
                "requests to backends that failed, a second",
                (
                    (
                        "{{backend}} {{status}}",
                        f"{_rate('comfyui_backend_requests_total', 'backend, status', NOT_WELL)} > 0",
                    ),
                ),
                unit="reqps",
            ),
            Panel(
                "memory of GPUs in use",
                (
                    (
                        "{{backend}}",
                        f"1 - max by (backend) ({VRAM_FREE}) / max by (backend) ({VRAM_TOTAL})",
                    ),
                ),
                unit="percentunit",
                top=1,
            ),
            Panel(
                "breaker and suspicion",
                (
                    ("{{backend}} breaker", "max by (backend) (comfyui_circuit_breaker_state) > 0"),
                    (
                        "{{backend}} suspected",
                        "sum by (backend) (increase(comfyui_backend_suspected_total[$__rate_interval])) > 0",
                    ),
                ),
                says="Breaker: 1 half open, 2 open.",
            ),
            Panel(
                "answers of backends",
                tuple(
                    (
                        f"{{{{backend}}}} p{percent}",
                        _quantile(percent, "comfyui_backend_request_duration_seconds", by="backend"),
                    )
                    for percent in (50, 99)
                ),
                unit="s",
            ),
            Panel(
                "backends a worker drives",
                (("{{instance}}", "comfyui_worker_leases > 0"),),
                stacked=True,
            ),
            Panel(
                "input files sent",
                (("{{backend}}", _rate("comfyui_inputs_sent_total", "backend")),),
                unit="ops",
            ),
        ),
    ),
    (
        "Storage",
        (
            Panel(
                "results stored",
                (("{{status}}", _rate("comfyui_storage_uploads_total", "status")),),
                unit="ops",
            ),
            Panel("bytes stored", (("results", _rate("comfyui_storage_upload_bytes_total")),), unit="Bps"),
            Panel(
                "results that wait for the store",
                (("{{instance}}", "comfyui_parked_results"),),
                stacked=True,
            ),
            Panel(
                "bytes that wait for the store",
                (("{{instance}}", "comfyui_parked_bytes"),),
                unit="bytes",
                stacked=True,
            ),
            Panel(
                "what became of results that waited",
                (("{{outcome}}", f"{_rate('comfyui_parked_ends_total', 'outcome')} > 0"),),
                unit="ops",
            ),
            Panel(
                "input pictures",
                (
                    ("brought, {{status}}", _rate("comfyui_uploads_total", "status")),
                    ("fetched, {{outcome}}", _rate("comfyui_input_fetches_total", "outcome")),
                ),
                unit="ops",
            ),
        ),
    ),
    (
        "Webhooks",
        (
            Panel(
                "attempts",
                (("{{status}}", _rate("comfyui_webhook_deliveries_total", "status")),),
                unit="ops",
            ),
            Panel("event to first attempt", _quantiles("comfyui_webhook_delay_seconds"), unit="s", bound=5),
            Panel(
                "waiting",
                (
                    ("deliveries", "max(comfyui_webhook_waiting)"),
                    ("longest, seconds", "max(comfyui_webhook_oldest_seconds)"),
                ),
            ),
        ),
    ),
    (
        "Processes, database, Redis",
        (
            Panel(
                "CPU",
                (
                    (
                        "{{job}} {{instance}}",
                        'rate(process_cpu_seconds_total{job=~"comfy-.+"}[$__rate_interval])',
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                "memory",
                (("{{job}} {{instance}}", 'process_resident_memory_bytes{job=~"comfy-.+"}'),),
                unit="bytes",
            ),
            Panel(
                "open files",
                (("{{job}} {{instance}}", 'process_open_fds{job=~"comfy-.+"}'),),
            ),
            Panel(
                "database, seen by each process",
                (("{{instance}}", "comfyui_database_up"),),
                kind="state",
                top=1,
            ),
            Panel(
                "Redis: time to answer",
                (
                    (
                        "{{use}} p99",
                        _quantile(99, "comfyui_redis_request_duration_seconds", by="use"),
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Redis: what went another way, and signals",
                (
                    ("{{use}}", f"{_rate('comfyui_redis_fallbacks_total', 'use')} > 0"),
                    ("signals {{outcome}}", f"{_rate('comfyui_redis_messages_total', 'outcome')} > 0"),
                ),
                unit="ops",
            ),
            Panel(
                "versions",
                (("{{role}} {{version}}", "count by (role, version) (comfyui_build_info)"),),
                stacked=True,
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    return {
        "uid": "comfy-api",
        "title": "comfy-api-service",
        "tags": ["comfy-api"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                }
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "expr": 'ALERTS{alertstate="firing",alertname=~"Comfy.*"}',
                    "titleFormat": "{{alertname}}",
                    "iconColor": "red",
                }
            ]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        y, x, deep = y + 1, 0, 0
        for panel in panels:
            high = 4 if panel.kind == "stat" else HEIGHT
            if x + panel.width > WIDTH:
                x, y, deep = 0, y + deep, 0
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": high})
            x, deep = x + panel.width, max(deep, high)
        y += deep


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    kind = "stat" if panel.kind == "stat" else "timeseries"
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bound is not None:
        steps = (
            [{"color": "red", "value": None}, {"color": "green", "value": panel.bound}]
            if kind == "stat" and panel.unit == "percentunit"
            else [*steps, {"color": "red", "value": panel.bound}]
        )
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0 if kind == "timeseries" else None,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.unit == "percentunit":
        defaults["decimals"] = 2
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    if kind == "timeseries":
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 5,
            "lineInterpolation": "stepAfter" if panel.kind == "state" else "linear",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if panel.bound is None else "line"},
        }
    return {
        "id": number,
        "type": kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {key: value for key, value in defaults.items() if value is not None},
            "overrides": [],
        },
        "options": options,
    }
