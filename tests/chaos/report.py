"""The table: what was run, with counts, on the terminal and in the docs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos.matrix import Column, Senseless, matrix
from tests.chaos.trials.trial import all_trials

PAGE: Final = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"
BEGIN: Final = "<!-- written by `make chaos` -->"
END: Final = "<!-- end of what is written -->"
COUNTS: Final = ("faults", "signals", "jobs", "lost", "doubled", "stuck", "wrong")

FAULTS: Final = 500
"""As many there are in a campaign, at least."""
SIGNALS: Final = 100
"""So many of them are signals to processes."""
OF_A_CELL: Final = 3
"""So many are made in each cell."""

Line = Mapping[str, Any]


def lines(results: Iterable[Line]) -> list[dict[str, Any]]:
    """One a cell, in the order of the matrix, and one a trial: its runs added up."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        place = (result["row"], result["column"])
        total = sums.setdefault(
            place, {"row": place[0], "column": place[1], "runs": 0, **dict.fromkeys(COUNTS, 0)}
        )
        total["runs"] += 1
        for name in COUNTS:
            value = result[name]
            total[name] += sum(value.values()) if isinstance(value, dict) else value
    order = {(row.name, str(column)): (row.place, at) for row in matrix() for at, column in enumerate(Column)}
    order |= {(trial.name, trial.way): (trial.place, 0) for trial in all_trials().values()}
    return sorted(sums.values(), key=lambda line: order[line["row"], line["column"]])


def total(table: Sequence[Line]) -> dict[str, Any]:
    return {name: sum(line[name] for line in table) for name in ("runs", *COUNTS)}


def too_few(table: Sequence[Line]) -> str:
    """What a campaign lacks that made fewer faults than it should; nothing if it made them."""
    sums = total(table)
    lacks = [
        f"{sums[name]} {name} of {least}"
        for name, least in (("faults", FAULTS), ("signals", SIGNALS))
        if sums[name] < least
    ]
    lacks += [
        f"{line['faults']} of {OF_A_CELL} in {line['row']}: {line['column']}"
        for line in table
        if line["faults"] < OF_A_CELL and line["row"] not in all_trials()
    ]
    return f"Too few faults, so no table is written: {'; '.join(lacks)}." if lacks else ""


def as_text(table: Sequence[Line]) -> str:
    """For a terminal."""
    rows = [["cell", "runs", *COUNTS]]
    rows += [
        [f"{line['row']}: {line['column']}", *(str(line[name]) for name in ("runs", *COUNTS))]
        for line in table
    ]
    rows.append(["all", *(str(value) for value in total(table).values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [
        [
            row[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in rows
    ]
    return "\n".join("  ".join(row) for row in shown)


def as_page(table: Sequence[Line]) -> str:
    """For the docs: the cells and trials that were run, and the cells that cannot be."""
    sums = total(table)
    beside = sum(line["row"] in all_trials() for line in table)
    what = f"{len(table) - beside} cells" + (f" and {beside} trials" if beside else "")
    said = (
        f"{sums['runs']} runs of {what}: {sums['faults']} faults, {sums['signals']} of them signals to "
        f"processes, over {sums['jobs']} jobs; {sums['lost']} lost, {sums['doubled']} doubled, {sums['stuck']} stuck, "
        f"{sums['wrong']} otherwise wrong."
    )
    shown = [
        said,
        "",
        "| part | fails by | runs | faults | of them signals | jobs | lost | doubled | stuck | wrong |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    shown += [
        f"| {line['row']} | {line['column']} | {line['runs']} | "
        + " | ".join(str(line[name]) for name in COUNTS)
        + " |"
        for line in table
    ]
    shown += ["", "Cells that make no sense:", ""]
    for row in matrix():
        for column, cell in row.cells.items():
            if isinstance(cell, Senseless):
                shown.append(f"- {row.name}, {column}: {cell.reason}")
    return "\n".join(shown)


def write(table: Sequence[Line], page: Path = PAGE) -> None:
    """Put the table into the page, between its marks."""
    text = page.read_text(encoding="utf-8")
    fresh, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{as_page(table)}\n\n{END}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise LookupError("the page has no place for the table")
    page.write_text(fresh, encoding="utf-8")
