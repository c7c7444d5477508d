"""Sets of rows as one parameter, on both databases."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from django.db import connection

#: A column of a row set: its name and its PostgreSQL type.
Column = tuple[str, str]


def rows(columns: Sequence[Column], alias: str) -> str:
    """Return the FROM item that turns one JSON parameter into rows.

    The parameter is a JSON array of arrays, as `encode` makes it. Only names written in
    this package are put into the text.
    """
    if connection.vendor == "postgresql":
        picked = ", ".join(
            f"(value->>{index})::{kind} AS {name}" for index, (name, kind) in enumerate(columns)
        )
        return f"(SELECT {picked} FROM jsonb_array_elements(%s::jsonb)) AS {alias}"  # noqa: S608
    picked = ", ".join(
        f"json_extract(value, '$[{index}]') AS {name}" for index, (name, _) in enumerate(columns)
    )
    return f"(SELECT {picked} FROM json_each(%s)) AS {alias}"  # noqa: S608


def row_set(
    columns: Sequence[Column], values: Sequence[Sequence[Any]], alias: str
) -> tuple[str, list[Any]]:
    """Return the FROM item that has these rows, and its parameters.

    What is the same in all rows, as most is of jobs that end alike, is written once: the
    database takes longer to read a column out of each row's JSON than to compare a row.
    """
    cast, pick = ("%s::{0}", "(value->>{1})::{0}")
    if connection.vendor != "postgresql":
        cast, pick = ("%s", "json_extract(value, '$[{1}]')")
    picked, shared, kept = list[str](), list[Any](), list[Sequence[Any]]()
    for (name, kind), column in zip(columns, zip(*values, strict=True), strict=True):
        first = column[0]
        if column.count(first) == len(column):
            picked.append(f"{cast.format(kind)} AS {name}")
            shared.append(timestamp(first) if isinstance(first, datetime) else first)
        else:
            picked.append(f"{pick.format(kind, len(kept))} AS {name}")
            kept.append(column)
    rest = zip(*kept, strict=True) if kept else [()] * len(values)
    each = (
        "jsonb_array_elements(%s::jsonb)" if connection.vendor == "postgresql" else "json_each(%s)"
    )
    return f"(SELECT {', '.join(picked)} FROM {each}) AS {alias}", [*shared, encode(rest)]  # noqa: S608


def encode(values: Iterable[Sequence[Any]]) -> str:
    """Return rows as the JSON parameter that `rows` reads."""
    if connection.vendor == "postgresql":
        return orjson.dumps(list(values)).decode()
    # Asked once for all rows: Django finds out each time which thread's connection is meant.
    adapt = connection.ops.adapt_datetimefield_value

    def adapted(value: object) -> str:
        if isinstance(value, datetime):
            return str(adapt(value))
        raise TypeError(f"{type(value).__name__} cannot be a parameter of the ledger.")

    option = orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(list(values), default=adapted, option=option).decode()


def timestamp(value: datetime) -> Any:
    """Return an aware datetime as the database's driver takes it."""
    return connection.ops.adapt_datetimefield_value(value)


def unindexed(column: str) -> str:
    """Return a text column for a condition that must not choose the query's plan.

    A database would walk all waiting jobs by an index on `state` instead of looking up the few
    ids of a row set: SQLite always, PostgreSQL when it was last analysed while few waited. A
    unary plus forbids it SQLite ("The Query Optimizer", 3), an expression PostgreSQL.
    """
    return f"+{column}" if connection.vendor == "sqlite" else f"({column} || '')"


def milliseconds(later: str, earlier: str) -> str:
    """Return the SQL for the milliseconds between two columns with times; NULL without one."""
    if connection.vendor == "postgresql":
        return f"EXTRACT(EPOCH FROM ({later} - {earlier}))::float8 * 1000"
    return f"(julianday({later}) - julianday({earlier})) * 86400000.0"
