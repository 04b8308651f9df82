"""Draws figures of a Prometheus as one SVG: `python deploy/monitoring/picture.py URL MINUTES > docs/monitoring.svg`."""

import json
import sys
import time
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import quote, urlsplit

WIDTH, HEIGHT, LEFT, TOP = 300, 110, 44, 34
ACROSS: Final = 2
COLORS: Final = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#64748b")
_LATENCY: Final = (
    "histogram_quantile({q}, sum by (le) (rate(comfyui_http_request_duration_seconds_bucket"
    '{{endpoint="/api/v1/jobs",method="POST"}}[1m])))'
)
_WAIT: Final = "histogram_quantile({q}, sum by (le) (rate(comfyui_job_wait_seconds_bucket[1m])))"
PANELS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "requests a second, by status",
        (("{code}", "sum by (code) (rate(comfyui_http_requests_total[1m])) > 0"),),
    ),
    (
        "submission, seconds",
        (("p50", _LATENCY.format(q=0.5)), ("p99", _LATENCY.format(q=0.99))),
    ),
    ("jobs waiting", (("waiting", "sum(max by (tier) (comfyui_queue_depth))"),)),
    ("wait for a backend, seconds", (("p50", _WAIT.format(q=0.5)), ("p95", _WAIT.format(q=0.95)))),
    ("share of time that backends work", (("{backend}", "max by (backend) (comfyui_backend_busy_ratio)"),)),
    ("backends that take work", (("{backend}", "max by (backend) (comfyui_backend_up)"),)),
    (
        "jobs a second",
        (
            ("accepted", "sum(rate(comfyui_jobs_created_total[1m]))"),
            ("{status}", "sum by (status) (rate(comfyui_jobs_total[1m])) > 0"),
        ),
    ),
    (
        "times the error budget, over an hour",
        (("{slo}", "comfyui:slo_errors:ratio1h / on (slo) comfyui:slo_budget:ratio"),),
    ),
)
SVG: Final = "http://www.w3.org/2000/svg"
STYLE: Final = (
    "<style>.title{font-size:13px;font-weight:600;fill:#0f172a}.axis{font-size:10px;fill:#475569}"
    ".grid{stroke:#e2e8f0}</style>"
)
Points = list[tuple[float, float]]


def asked(address: str, query: str, begin: float, end: float) -> list[dict[str, Any]]:
    place = urlsplit(address)
    connection = HTTPConnection(place.hostname or "127.0.0.1", place.port or 9090, timeout=10)
    connection.request("GET", f"/api/v1/query_range?query={quote(query)}&start={begin}&end={end}&step=5")
    found: list[dict[str, Any]] = json.load(connection.getresponse())["data"]["result"]
    connection.close()
    return found


def panel(
    address: str, title: str, queries: tuple[tuple[str, str], ...], begin: float, end: float
) -> list[str]:
    lines: list[tuple[str, Points]] = []
    for legend, query in queries:
        for one in asked(address, query, begin, end):
            points = [
                (float(at), float(value)) for at, value in one["values"] if value not in {"NaN", "+Inf"}
            ]
            lines.append((legend.format_map(one["metric"]), points))
    top = max((value for _, points in lines for _, value in points), default=0.0) * 1.1 or 1.0
    drawn = [f'<text class="title" x="0" y="-18">{title}</text>']
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT * (1 - share)
        drawn += [
            f'<path class="grid" d="M0 {y:.0f}H{WIDTH}"/>',
            f'<text class="axis" x="-6" y="{y + 4:.0f}" text-anchor="end">{top * share:.3g}</text>',
        ]
    x = 0
    for number, (name, points) in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path, before = "", 0.0
        for at, value in points:
            move = "M" if not path or at - before > 20 else "L"
            path += f"{move}{(at - begin) / (end - begin) * WIDTH:.1f} {HEIGHT * (1 - value / top):.1f}"
            before = at
        drawn += [
            f'<path fill="none" stroke="{color}" stroke-width="1.4" d="{path}"/>',
            f'<text class="axis" x="{x}" y="-5" fill="{color}" style="fill:{color}">{name}</text>',
        ]
        x += 7 * len(name) + 10
    for share in (0, 1):
        minutes = (end - begin) / 60 * share
        anchor = "end" if share else "start"
        drawn.append(
            f'<text class="axis" x="{WIDTH * share}" y="{HEIGHT + 14}" text-anchor="{anchor}">{minutes:.0f} min</text>'
        )
    return drawn


def picture(address: str, minutes: float) -> str:
    end = time.time()
    begin = end - minutes * 60
    wide, high = WIDTH + LEFT + 20, HEIGHT + TOP + 30
    rows = -(-len(PANELS) // ACROSS)
    parts = [
        f'<svg xmlns="{SVG}" font-family="sans-serif" viewBox="0 0 {wide * ACROSS} {high * rows}">',
        STYLE,
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, (title, queries) in enumerate(PANELS):
        x, y = number % ACROSS * wide + LEFT, number // ACROSS * high + TOP
        parts += [f'<g transform="translate({x} {y})">', *panel(address, title, queries, begin, end), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    sys.stdout.write(picture(sys.argv[1], float(sys.argv[2])))
