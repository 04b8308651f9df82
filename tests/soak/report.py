"""The report of a soak: Markdown, which is also what the screen shows."""

from statistics import median
from typing import Final

from tests.soak.flatness import PER_HOUR
from tests.soak.samples import MEGABYTE, NOISE, UNITS
from tests.soak.soak import MINUTE, Report

MOST_FOUND: Final = 50


def page(report: Report) -> str:
    sections = [_head(report), _flat(report), _faults(report), _load(report), _disk(report)]
    return "\n\n".join(sections) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    cells = [head, *[tuple(str(one) for one in row) for row in rows]]
    wide = [max(len(row[n]) for row in cells) for n in range(len(head))]
    lines = ["| " + " | ".join(one.ljust(wide[n]) for n, one in enumerate(row)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (n + 2) for n in wide) + "|", *lines[1:]])


def _head(report: Report) -> str:
    what = "one machine, `serve` over SQLite" if report.plan.one_machine else "two API processes, two workers"
    done = report.outcome
    wrong = len(report.found) - done.lost - done.doubled - done.stuck
    length = f"{report.seconds / MINUTE:.1f} minutes, {what}"
    load = f"{done.jobs} jobs ({done.jobs / report.seconds:.1f} a second), {sum(done.faults.values())} faults"
    lines = [
        f"# Soak: {'CLEAN' if report.clean else 'NOT CLEAN'}",
        "",
        f"{length}; {load}. Lost {done.lost}, doubled {done.doubled}, stuck {done.stuck}, wrong {wrong}.",
    ]
    if report.interrupted:
        lines.append("\nInterrupted: it says something of this time only.")
    lines += [f"- {text}" for text in report.found[:MOST_FOUND]]
    return "\n".join(lines)


def _flat(report: Report) -> str:
    rows: list[tuple[object, ...]] = [
        (
            who,
            measure + (f" ({UNITS[measure]})" if measure in UNITS else ""),
            f"{one.begin:.1f}",
            f"{one.end:.1f}",
            f"{one.growth:+.2f}",
            f"{one.allowed:.2f}",
            f"{100 * one.per_hour:+.1f} %",
            "flat" if one.flat else "GROWS",
        )
        for (who, measure), one in report.verdicts.items()
    ]
    head = ("who", "what", "begin", "end", "growth", "at most", "an hour", "")
    noise = ", ".join(f"{measure} {value:g}" for measure, value in NOISE.items())
    return (
        "## Flat\n\nSecond half of the time, processes that lived through it. Growth by the Theil–Sen slope; at most "
        f"{PER_HOUR:.0%} an hour, or this much, which says nothing: {noise}.\n\n"
        + (_table(head, rows) if rows else "Too short to say anything of it.")
    )


def _faults(report: Report) -> str:
    rows: list[tuple[object, ...]] = [
        (name, len(times), f"{median(times):.1f} s", f"{max(times):.1f} s")
        for name, times in report.recoveries.items()
    ]
    head = ("fault", "times", "served again after (median)", "longest")
    return "## Faults\n\n" + (_table(head, rows) if rows else "None.")


def _load(report: Report) -> str:
    rows: list[tuple[object, ...]] = [(f"jobs seen {end}", count) for end, count in report.ends.items()]
    rows += [(name, count) for name, count in sorted(report.uses.items())]
    rows += [(f"errors `{code}`", count) for code, count in report.outcome.errors.items()]
    rows.append(("answers that callers did not get", report.outcome.deaf))
    rows += [
        (f"CPU of {who}", f"{100 * used / report.seconds:.1f} % of a core")
        for who, used in sorted(report.cpu.items())
    ]
    return "## Load\n\n" + _table(("what", "how much"), rows)


def _disk(report: Report) -> str:
    jobs = max(1, report.outcome.jobs)
    rows: list[tuple[object, ...]] = [
        (name, last, f"{(last - first) / jobs:.2f}", f"{size / MEGABYTE:.1f}")
        for name, (first, _, last, size) in sorted(report.tables.items())
        if last or size
    ]
    grown = report.disk[-1][1] - report.disk[0][1] if report.disk else 0.0
    return (
        "## Tables and disk\n\nJobs, their events and files stay until retention takes them: they grow with the jobs."
        f" Data folders and results grew by {grown / MEGABYTE:.1f} MB, {grown / jobs / 1000:.1f} kB a job.\n\n"
        + _table(("table", "rows", "new rows a job", "MB"), rows)
    )
