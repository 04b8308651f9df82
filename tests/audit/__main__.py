"""`make audit`: known vulnerabilities of the locked dependencies, their licences, secrets in the tree.

Ends with 1 if something is bad, with 3 if nothing is bad but a part is NOT KNOWN (no answer from the source of
vulnerabilities, say), with 0 if all is known and good.

    make audit
    make audit ARGS="--source osv"              another source of known vulnerabilities
    make audit ARGS="--accept GHSA-xxxx"        one that was judged, and is lived with
    make audit ARGS="--allow-not-known"         where the source cannot be reached: told all the same, but 0
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from tests.audit import licences, secrets, vulnerabilities
from tests.audit.finding import Finding, Verdict
from tests.audit.lock import read
from tests.chaos.scene import ROOT

SCREEN: Final = Console(highlight=False, soft_wrap=True)
SERVICE, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
NOT_KNOWN_CODE: Final = 3
COLOURS: Final = {Verdict.GOOD: "green", Verdict.BAD: "bold red", Verdict.NOT_KNOWN: "bold yellow"}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make audit ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=("pypi", "osv"), default="pypi", help="of known vulnerabilities")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="ID", help="a vulnerability to be lived with"
    )
    parser.add_argument("--allow-not-known", action="store_true", help="end with 0 where a part is not known")
    return parser.parse_args(given)


def code(findings: Sequence[Finding], *, allow_not_known: bool) -> int:
    verdicts = {one.verdict for one in findings}
    if Verdict.BAD in verdicts:
        return 1
    return NOT_KNOWN_CODE if Verdict.NOT_KNOWN in verdicts and not allow_not_known else 0


def tell(finding: Finding) -> None:
    SCREEN.print(f"[{COLOURS[finding.verdict]}]{finding.verdict}[/]  {finding.part}: {finding.summary}")
    for text in finding.details:
        SCREEN.print(f"    {text}", markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _arguments(arguments)
    findings = []
    for finding in (
        # What is run with the service is among what is developed with: one question covers both.
        vulnerabilities.look(DEVELOPMENT, source=given.source, accepted=given.accept),
        licences.look(read(SERVICE), read(DEVELOPMENT)),
        secrets.look(ROOT),
    ):
        tell(finding)
        findings.append(finding)
    return code(findings, allow_not_known=given.allow_not_known)


if __name__ == "__main__":
    sys.exit(main())
