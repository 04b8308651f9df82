"""Known vulnerabilities of the locked dependencies, by pip-audit.

It ends with 0 and "no known vulnerabilities" also where its source knew none of the packages: so its answer is read
package by package, and each that was not looked up makes the whole not known.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.audit.finding import Finding, Verdict

PART: Final = "vulnerabilities"
LIMIT_SECONDS: Final = 600
_SHOWN: Final = 5
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)


def look(lock: Path, *, source: str, accepted: Sequence[str] = (), run: Run = _run) -> Finding:
    """`source`: `pypi` or `osv`; `accepted`: ids that were judged and are lived with."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip",
        "--vulnerability-service", source, "--progress-spinner", "off", "--format", "json",
        *(word for one in accepted for word in ("--ignore-vuln", one)),
    ]  # fmt: skip
    try:
        done = run(command)
    except subprocess.TimeoutExpired:
        return Finding(PART, Verdict.NOT_KNOWN, f"{source} did not answer within {LIMIT_SECONDS} s")
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or ["no word why"]
        return Finding(PART, Verdict.NOT_KNOWN, f"{source} could not be asked", [last[0][:300]])
    bad = [
        f"{one['name']} {one['version']}: {fault['id']}"
        + (f", mended in {', '.join(fault['fix_versions'])}" if fault.get("fix_versions") else "")
        for one in told
        for fault in one.get("vulns", ())
    ]
    skipped = [one for one in told if "vulns" not in one]
    if bad:
        return Finding(PART, Verdict.BAD, f"{len(bad)} in {len(told)} packages of {lock.name}", bad)
    if skipped or not told:
        reasons = [str(one.get("skip_reason", one["name"])) for one in skipped[:_SHOWN]]
        more = [f"… and {len(skipped) - _SHOWN} more"] if len(skipped) > _SHOWN else []
        text = f"{len(skipped)} of {len(told)} packages of {lock.name} were not found at {source}"
        return Finding(PART, Verdict.NOT_KNOWN, text, reasons + more)
    return Finding(PART, Verdict.GOOD, f"none known at {source} in {len(told)} packages of {lock.name}")
