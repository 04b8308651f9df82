"""CSV whose cells stay what they are."""

import csv
import io
from collections.abc import AsyncIterator

import pytest

from comfy_api_service.api.spreadsheets import CHUNK, Line, csv_of


async def lines(*given: Line) -> AsyncIterator[Line]:
    for line in given:
        yield line


async def text(*given: Line) -> str:
    chunks = [chunk async for chunk in await csv_of(("name", "count"), lines(*given))]
    return b"".join(chunks).decode()


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "=", '=cmd|"/c"!A0']
)
async def test_no_cell_is_taken_for_a_formula(cell: str) -> None:
    _, row = csv.reader(io.StringIO(await text((cell, -1)), newline=""))
    assert row == [f"'{cell}", "-1"]


@pytest.mark.parametrize("cell", ["ada", "", 'say "a, b"', "two\r\nlines", "a=b", "Ünïcode"])
async def test_other_cells_stay_as_they_are(cell: str) -> None:
    _, row = csv.reader(io.StringIO(await text((cell, 2.5)), newline=""))
    assert row == [cell, "2.5"]


async def test_all_lines_come() -> None:
    for count in (0, 1, CHUNK, 2 * CHUNK + 1):
        rows = list(csv.reader(io.StringIO(await text(*((f"n{n}", n) for n in range(count))), newline="")))
        assert rows == [["name", "count"], *([f"n{n}", str(n)] for n in range(count))]
