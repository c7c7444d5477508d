"""Sets of rows as one parameter, and statements in few round trips, on both databases."""

import logging
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

import orjson
from django.db import (
    DEFAULT_DB_ALIAS,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
)
from django.db.backends.utils import CursorWrapper

logger = logging.getLogger(__name__)

# A prepared statement is not there, or is there already (PostgreSQL, "Error Codes").
_NOT_PREPARED = ("26000", "42P05")
_POOLER = (
    "The database does not know what was prepared on this connection: a pooler gives each "
    "transaction another one. This process prepares no more statements. Set prepare_threshold to "
    "None in the OPTIONS of the database (the site: DATABASE_PREPARE_THRESHOLD=0)."
)
#: A column of a row set: its name and its PostgreSQL type.
Column = tuple[str, str]
#: A statement and its parameters.
Statement = tuple[str, Sequence[Any]]


class _Preparing:
    """Whether this process may prepare statements, as far as it has found out."""

    is_possible = True


@contextmanager
def prepared_cursor() -> Iterator[CursorWrapper]:
    """Give a cursor whose statements PostgreSQL reads and plans once per connection.

    Only where the project allows it by the option `prepare_threshold` of its database: Django
    forbids it by itself, because a pooler between may give each transaction another connection.
    And only for a statement that comes again and again with the same text, and that adds rows
    or finds them by a primary key: its plan is kept while the tables grow, until PostgreSQL has
    analysed them again.

    Raises:
        OperationalError: there is such a pooler. The next time nothing is prepared.
    """
    # The connection itself: Django's `connection` looks for it at every attribute.
    own = connections[DEFAULT_DB_ALIAS]
    if own.vendor != "postgresql" or not _Preparing.is_possible:
        with own.cursor() as cursor:
            yield cursor
        return
    own.close_if_health_check_failed()
    own.ensure_connection()
    if getattr(own.connection, "prepare_threshold", None) is None:
        with own.cursor() as cursor:
            yield cursor
        return
    with own.wrap_database_errors:
        made = own._prepare_cursor(_server_binding()(own.connection))  # type: ignore[attr-defined]
    try:
        with made:
            yield made
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) not in _NOT_PREPARED:
            raise
        _Preparing.is_possible = False
        logger.error("%s", _POOLER)
        raise OperationalError(_POOLER) from error


@cache
def _server_binding() -> Any:
    # Only psycopg 3 has it.
    from django.db.backends.postgresql.base import ServerBindingCursor

    return ServerBindingCursor


def insert_all(statements: Sequence[Statement], *, is_usual: bool) -> None:
    """Execute INSERTs of which none needs the other, on PostgreSQL in one round trip.

    There they become one statement. It executes its main part first and then the parts of its
    WITH from the last to the first; no document promises that, so whoever locks rows in this
    order has to survive a deadlock.

    Args:
        statements: at least one; plain INSERTs that return nothing.
        is_usual: whether this text, all in all, is likely to come often; see `prepared_cursor`.
    """
    with prepared_cursor() if is_usual else connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            for statement, parameters in statements:
                cursor.execute(statement, parameters)
            return
        (main, given), *others = statements
        parts = [f"part{number} AS ({text})" for number, (text, _) in enumerate(reversed(others))]
        beginning = f"WITH {', '.join(parts)} " if parts else ""
        parameters = [each for _, values in reversed(others) for each in values]
        cursor.execute(beginning + main, [*parameters, *given])


def rows(columns: Sequence[Column], alias: str) -> str:
    """Return the FROM item that turns one JSON parameter into rows.

    The parameter is a JSON array of arrays, as `encode` makes it. Only names written in
    this package are put into the text.
    """
    return _item([_picked(index, column) for index, column in enumerate(columns)], alias)


def row_set(
    columns: Sequence[Column], values: Sequence[Sequence[Any]], alias: str
) -> tuple[str, list[Any]]:
    """Return the FROM item that has these rows, at least one, and its parameters.

    What is the same in all rows, as most is of jobs that end alike, is written once: the
    database takes longer to read a column out of each row's JSON than to compare a row.
    """
    picked, shared, kept = list[str](), list[Any](), list[Sequence[Any]]()
    for column, found in zip(columns, zip(*values, strict=True), strict=True):
        first = found[0]
        if found.count(first) == len(found):
            name, kind = column
            value = f"%s::{kind}" if connection.vendor == "postgresql" else "%s"
            picked.append(f"{value} AS {name}")
            shared.append(timestamp(first) if isinstance(first, datetime) else first)
        else:
            picked.append(_picked(len(kept), column))
            kept.append(found)
    if len(values) == 1:
        # A row of constants, which the planner sees through.
        return f"(SELECT {', '.join(picked)}) AS {alias}", shared
    rest = zip(*kept, strict=True) if kept else [()] * len(values)
    return _item(picked, alias), [*shared, encode(rest)]


def _picked(index: int, column: Column) -> str:
    name, kind = column
    if connection.vendor == "postgresql":
        if kind == "bytea":
            return f"decode(value->>{index}, 'base64') AS {name}"
        return f"(value->>{index})::{kind} AS {name}"
    return f"json_extract(value, '$[{index}]') AS {name}"


def _item(picked: Sequence[str], alias: str) -> str:
    each = "json_each(%s)"
    if connection.vendor == "postgresql":
        each = "jsonb_array_elements(%s::jsonb)"
    return f"(SELECT {', '.join(picked)} FROM {each}) AS {alias}"  # noqa: S608  # names of ours


def encode(values: Iterable[Sequence[Any]]) -> str:
    """Return rows as the JSON parameter that `rows` reads."""
    if connection.vendor == "postgresql":
        return orjson.dumps(list(values), default=_base64).decode()
    # Asked once for all rows: Django finds out each time which thread's connection is meant.
    adapt = connection.ops.adapt_datetimefield_value

    def adapted(value: object) -> str:
        if isinstance(value, datetime):
            return str(adapt(value))
        raise TypeError(f"{type(value).__name__} cannot be a parameter of the ledger.")

    option = orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(list(values), default=adapted, option=option).decode()


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be a parameter of the ledger.")


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
