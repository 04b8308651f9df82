"""Lines for spreadsheets: CSV, streamed, with no cell that a spreadsheet would take for a formula."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Final

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
CHUNK: Final = 500
"""Lines that are sent at once."""
Line = Sequence[str | int | float]


def harmless(cell: str | float) -> str | int | float:
    """A text that begins as a formula does, blanks or not, gets an apostrophe before it; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" \n").startswith(FORMULA) else cell


async def csv_of(header: Line, lines: AsyncIterator[Line]) -> AsyncIterator[bytes]:
    """UTF-8, by RFC 4180. The first chunk is there when this is: what cannot be read is an error's answer, not half a
    file.
    """
    chunks = _chunks(header, lines)
    first = await anext(chunks)

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return whole()


async def _chunks(header: Line, lines: AsyncIterator[Line]) -> AsyncIterator[bytes]:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(header)
    count = 0
    async for line in lines:
        writer.writerow([harmless(cell) for cell in line])
        count += 1
        if count % CHUNK == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()
