"""Licences of the locked dependencies, as their own metadata tells them, against the allowed ones."""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from tests.audit.finding import Finding, Verdict
from tests.audit.lock import normal

TABLE: Final = Path(__file__).with_name("licences.toml")
PART: Final = "licences"
_WORDS: Final = re.compile(r"\(|\)|[^\s()]+")
_LONGEST: Final = 60
"""Characters of a `License` field that names a licence; longer ones are its text."""


@dataclass(frozen=True, slots=True)
class Table:
    allowed: Mapping[str, str]
    development: Mapping[str, str]
    names: Mapping[str, str]
    packages: Mapping[str, str]


def table(path: Path = TABLE) -> Table:
    return Table(**tomllib.loads(path.read_text(encoding="utf-8")))


def permitted(expression: str, allowed: Collection[str]) -> bool:
    """Whether an SPDX expression leaves a choice of allowed licences only. What is no expression is not."""
    words = _WORDS.findall(expression)

    def one_of() -> bool:
        good = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            good = all_of() or good
        return good

    def all_of() -> bool:
        good = single()
        while words and words[0] == "AND":
            words.pop(0)
            good = single() and good
        return good

    def single() -> bool:
        if not words:
            return False
        word = words.pop(0)
        if word != "(":
            return word in allowed
        good = one_of()
        return bool(words) and words.pop(0) == ")" and good

    return one_of() and not words


def told_by_installed(names: Mapping[str, str]) -> dict[str, str]:
    """By package, what it says of itself, as an SPDX expression where it can be read as one."""
    found = {}
    for one in distributions():
        told: Any = one.metadata
        expression = told.get("License-Expression")
        if expression is None:
            classes = [
                line.rpartition(" :: ")[2]
                for line in told.get_all("Classifier") or []
                if line.startswith("License :: ") and not line.endswith(":: OSI Approved")
            ]
            # Several classifiers may mean a choice or a sum: each is asked for.
            expression = " AND ".join(name for name in (names.get(one, one) for one in classes) if name)
        if not expression:
            expression = (told.get("License") or "").strip()
        found[normal(told["Name"])] = expression if len(expression) <= _LONGEST else "(a text, not a name)"
    return found


def look(
    service: Collection[str],
    development: Collection[str],
    *,
    known: Table | None = None,
    told: Callable[[Mapping[str, str]], Mapping[str, str]] = told_by_installed,
) -> Finding:
    """`service`: what the service is run with; `development`: what is locked beside it."""
    rules = known or table()
    licences = {
        **(said := told(rules.names)),
        **{one: rules.packages[one] for one in said.keys() & rules.packages},
    }
    bad, absent = [], []
    for names, allowed in (
        (service, set(rules.allowed)),
        (set(development) - set(service), {*rules.allowed, *rules.development}),
    ):
        for name in sorted(names):
            if name not in licences:
                absent.append(name)
            elif not permitted(licences[name], allowed):
                bad.append(f"{name}: {licences[name] or 'tells no licence'}")
    seen = len(set(service) | set(development)) - len(absent)
    details = bad + (
        [f"not installed on this platform, not looked at: {', '.join(absent)}"] if absent else []
    )
    if bad:
        return Finding(
            PART, Verdict.BAD, f"{len(bad)} of {seen} are not on the list in {TABLE.name}", details
        )
    if not seen:
        return Finding(PART, Verdict.NOT_KNOWN, "none of the locked packages is installed", details)
    return Finding(PART, Verdict.GOOD, f"{seen} packages have allowed ones", details)
