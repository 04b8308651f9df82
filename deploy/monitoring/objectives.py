"""The objectives: what is measured, how much of it may be bad, and the rules that follow from them.

docs/SLO.md says why. `generate.py` writes rules/objectives.yml from here.
"""

from dataclasses import dataclass
from typing import Any, Final

PROBES: Final = "/|/ping|/health.*|/metrics|unmatched"
OURS: Final = (
    "ATTEMPTS_EXHAUSTED",
    "NO_CAPABLE_BACKEND",
    "OUTPUT_INVALID",
    "OUT_OF_MEMORY",
    "POISON_JOB",
    "STORAGE_FAILED",
)
"""Reasons of failed jobs that are no fault of who asked."""


@dataclass(frozen=True, slots=True)
class Objective:
    """`events` and `bad` are rates over five minutes, each one number."""

    name: str
    alert: str
    promise: str
    goal: float
    events: str
    bad: str
    summary: str

    @property
    def budget(self) -> float:
        return round(1 - self.goal, 6)


def _late(metric: str, seconds: str, labels: str = "") -> tuple[str, str]:
    """All events of a histogram, and those beyond a bound."""
    within = f'{labels},le="{seconds}"' if labels else f'le="{seconds}"'
    events = f"sum(rate({metric}_count{{{labels}}}[5m]))" if labels else f"sum(rate({metric}_count[5m]))"
    return events, f"{events} - sum(rate({metric}_bucket{{{within}}}[5m]))"


_ASKED: Final = f'endpoint!~"{PROBES}"'
_SUBMISSION: Final = _late(
    "comfyui_http_request_duration_seconds", "0.25", 'endpoint="/api/v1/jobs",method="POST"'
)
_START: Final = _late("comfyui_job_wait_seconds", "120.0")
_WEBHOOK: Final = _late("comfyui_webhook_delay_seconds", "5.0")
_REASONS: Final = "|".join(OURS)

OBJECTIVES: Final = (
    Objective(
        "availability",
        "ComfyAvailability",
        "requests are answered without a fault of the service",
        0.999,
        f"sum(rate(comfyui_http_requests_total{{{_ASKED}}}[5m]))",
        f'sum(rate(comfyui_http_requests_total{{{_ASKED},code=~"5..",code!="502"}}[5m]))',
        "Callers get errors that are not their fault.",
    ),
    Objective(
        "submission",
        "ComfySubmission",
        "submissions (`POST /api/v1/jobs`) are answered within 250 ms",
        0.99,
        *_SUBMISSION,
        "Submissions are slow.",
    ),
    Objective(
        "start",
        "ComfyStart",
        "jobs start on a backend within 2 minutes",
        0.95,
        *_START,
        "Jobs wait too long for a backend.",
    ),
    Objective(
        "success",
        "ComfySuccess",
        "jobs succeed, those apart that failed by their caller's fault or were canceled",
        0.995,
        'sum(rate(comfyui_jobs_total{status="succeeded"}[5m])) + '
        f'sum(rate(comfyui_job_failures_total{{reason=~"{_REASONS}"}}[5m]))',
        f'sum(rate(comfyui_job_failures_total{{reason=~"{_REASONS}"}}[5m]))',
        "Jobs fail, and it is not their callers' fault.",
    ),
    Objective(
        "webhooks",
        "ComfyWebhooks",
        "webhooks are first sent within 5 s of their event",
        0.99,
        *_WEBHOOK,
        "Webhooks leave too late.",
    ),
)

EVERY_SECONDS: Final = 60
"""Between two evaluations: for so long the recorded rate of each stands, where events are counted from it."""
LONGER: Final = ("30m", "1h", "2h", "6h", "1d", "3d")
FAST: Final = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
"""Times the budget, over the long window and still over the short one: 2 % of a month's in an hour, 5 % in six."""
SLOW: Final = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))
"""10 % of it in a day, or in three."""
LEAST_FAST, LEAST_SLOW = 5, 20
"""Bad events in the long window; fewer wake nobody, whatever share of a quiet night's they are."""


def rules() -> dict[str, Any]:
    """The rule file's document."""
    return {"groups": [_recorded(), *(_alerts(one) for one in OBJECTIVES)]}


def _recorded() -> dict[str, Any]:
    recorded: list[dict[str, Any]] = []
    for one in OBJECTIVES:
        labels = {"slo": one.name}
        recorded += [
            {"record": "comfyui:slo_events:rate5m", "labels": labels, "expr": one.events},
            {"record": "comfyui:slo_bad:rate5m", "labels": labels, "expr": f"{one.bad} or vector(0)"},
            {"record": "comfyui:slo_budget:ratio", "labels": labels, "expr": f"vector({one.budget:g})"},
        ]
    recorded.append(
        {"record": "comfyui:slo_errors:ratio5m", "expr": "comfyui:slo_bad:rate5m / comfyui:slo_events:rate5m"}
    )
    recorded += [
        {
            "record": f"comfyui:slo_errors:ratio{window}",
            "expr": f"sum_over_time(comfyui:slo_bad:rate5m[{window}]) / "
            f"sum_over_time(comfyui:slo_events:rate5m[{window}])",
        }
        for window in LONGER
    ]
    return {"name": "objectives", "interval": f"{EVERY_SECONDS}s", "rules": recorded}


def _alerts(one: Objective) -> dict[str, Any]:
    return {
        "name": one.name,
        "interval": f"{EVERY_SECONDS}s",
        "rules": [
            _alert(one, "BurnsFast", "critical", FAST, LEAST_FAST, "2m"),
            _alert(one, "BurnsSlowly", "warning", SLOW, LEAST_SLOW, "15m"),
        ],
    }


def _alert(
    one: Objective,
    how: str,
    severity: str,
    windows: tuple[tuple[float, str, str], ...],
    least: int,
    lasting: str,
) -> dict[str, Any]:
    return {
        "alert": one.alert + how,
        "expr": "\nor\n".join(_burns(one, *window, least) for window in windows) + "\n",
        "for": lasting,
        "labels": {"severity": severity, "slo": one.name},
        "annotations": {
            "summary": one.summary,
            "description": f"{one.goal * 100:g} % of {one.promise}: the month's budget is being spent "
            + ("in hours or days." if how == "BurnsFast" else "faster than a month lasts.")
            + " Share that is bad: {{ $value | humanizePercentage }}.",
            "runbook_url": f"docs/RUNBOOK.md#{one.alert.lower()}burns",
        },
    }


def _burns(one: Objective, times: float, long: str, short: str, least: int) -> str:
    of = f'{{slo="{one.name}"}}'
    bound = f"{times * one.budget:g}"
    return (
        f"(comfyui:slo_errors:ratio{long}{of} > {bound}\n"
        f"  and comfyui:slo_errors:ratio{short}{of} > {bound}\n"
        f"  and sum_over_time(comfyui:slo_bad:rate5m{of}[{long}]) * {EVERY_SECONDS} >= {least})"
    )
