"""How commands answer: a table for people, JSON for machines, one exit code for both."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import IO, Any, cast

from django.core.management.base import OutputWrapper
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from queueadmin.display import exact, plain

Row = Mapping[str, Any]


# Of files and pipes, which have no width of their own.
_WIDTH = 160


def write(out: OutputWrapper, rows: Sequence[Row], *, output_format: str) -> None:
    """Write rows that all have the keys of the first one."""
    if output_format == "json":
        out.write(json.dumps(list(rows), default=_machine, ensure_ascii=False, indent=2) + "\n")
        return
    # It passes everything on to the stream that it wraps.
    stream = cast("IO[str]", out)
    console = Console(file=stream, width=None if out.isatty() else _WIDTH)
    if not rows:
        console.print("Nothing to show.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(rows[0]):
        # What to name in the next command is shown whole.
        table.add_column(name.replace("_", " "), no_wrap=number == 0, overflow="fold")
    for row in rows:
        # Text, never markup: names and errors are foreign.
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console.print(table)


def _machine(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return exact(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(key)}: {_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return plain(value)
