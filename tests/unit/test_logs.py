"""Logs tell no prompts: not even where a fault is logged with everything around it."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from comfy_api_service.telemetry import configure_logs
configure_logs(level="INFO", as_json={as_json})
def submit(prompt):
    raise RuntimeError("in the middle")
try:
    submit("a canary in the prompt")
except RuntimeError:
    structlog.get_logger().exception("unhandled_error")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_logged_fault_shows_no_local_variables(as_json: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(as_json=as_json)], capture_output=True, text=True, check=True
    )
    assert "in the middle" in done.stderr
    assert "prompt)" in done.stderr or "RuntimeError" in done.stderr
    shown = [line for line in done.stderr.splitlines() if "canary" in line]
    assert all('submit("a canary' in line or "submit(\\" in line for line in shown), shown
