"""Lists as files: what the list shows under its filters, safe to open in a spreadsheet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.http import StreamingHttpResponse

from .. import display

#: Rows of one file; whoever needs more narrows the list and exports in parts.
LIMIT = 10_000
FORMATS = ("csv", "json")

#: Head of a column, and what stands in it.
Column = tuple[str, Callable[[Any], object]]

# A spreadsheet runs a cell that begins like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")


def response(
    rows: Iterable[Any], columns: Sequence[Column], *, name: str, form: str
) -> StreamingHttpResponse:
    """Return rows as a file to save, one row at a time.

    Args:
        rows: what is written, at most LIMIT of it.
        columns: what of each row.
        name: the file's name without its ending.
        form: one of FORMATS.
    """
    lines = _csv(rows, columns) if form == "csv" else _json(rows, columns)
    kinds = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
    return StreamingHttpResponse(
        lines,
        content_type=kinds[form],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{form}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def harmless(value: object) -> object:
    """Return a value that a spreadsheet shows instead of running it."""
    if value is None or isinstance(value, int | float):
        return value
    text = display.plain(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, line: str) -> str:
        return line


def _csv(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[str]:
    writer: Any = csv.writer(_Echo())
    # The mark tells spreadsheets that it is UTF-8.
    yield "\ufeff" + writer.writerow([head for head, _read in columns])
    for row in rows:
        yield writer.writerow([harmless(read(row)) for _head, read in columns])


def _json(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[str]:
    separator = "[\n"
    for row in rows:
        values = {head: read(row) for head, read in columns}
        yield separator + json.dumps(values, default=str)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"
