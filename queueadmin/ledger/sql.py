"""Sets of rows as one parameter, and statements in few round trips, on both databases."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.db.backends.utils import CursorWrapper

from ..conf import settings

# After so many times a statement is worth being prepared.
_PREPARED_FROM = 5
_prepares: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()
#: A column of a row set: its name and its PostgreSQL type.
Column = tuple[str, str]
#: A statement and its parameters.
Statement = tuple[str, Sequence[Any]]


@contextmanager
def prepared_cursor() -> Iterator[CursorWrapper]:
    """Give a cursor whose statements PostgreSQL reads and plans once per connection.

    Django forbids that by itself, because a pooler between may give each transaction another
    connection; so it is done only where there is none, and where QUEUEADMIN allows it
    (PREPARED_STATEMENTS). And only for a statement that comes again and again with the same text,
    and that adds rows or finds them by a primary key: its plan is kept while the tables grow, until
    PostgreSQL has analysed them again.
    """
    # The connection itself: Django's `connection` looks for it at every attribute.
    own = connections[DEFAULT_DB_ALIAS]
    if own.vendor == "postgresql":
        own.close_if_health_check_failed()
        own.ensure_connection()
        bare = own.connection
        with own.wrap_database_errors:
            may_prepare = _may_prepare(bare)
        if may_prepare:
            # For these statements only: psycopg counts the texts of all others as well and keeps
            # the last hundred, with all that was written into them.
            before, bare.prepare_threshold = bare.prepare_threshold, _PREPARED_FROM
            try:
                with own._prepare_cursor(_server_binding()(bare)) as cursor:  # type: ignore[attr-defined]
                    yield cursor
            finally:
                bare.prepare_threshold = before
            return
    with own.cursor() as cursor:
        yield cursor


def _may_prepare(bare: Any) -> bool:
    """Return whether statements may be prepared on a driver's connection; it is asked once."""
    found = _prepares.get(bare)
    if found is None:
        found = settings.PREPARED_STATEMENTS and hasattr(bare, "prepare_threshold")
        found = _prepares[bare] = found and is_direct(bare)
    return found


def is_direct(bare: Any) -> bool:
    """Return whether a connection of psycopg 3 is one to the database itself.

    A pooler tells its clients a process number of its own, by which they may cancel (PostgreSQL,
    "Frontend/Backend Protocol", BackendKeyData).
    """
    (number,) = bare.execute("SELECT pg_backend_pid()").fetchone()
    return bool(number == bare.info.backend_pid)


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
    # PostgreSQL takes 100 rows for granted, which make it read a small table as a whole.
    return _item(picked, alias, f"LIMIT {len(values)}"), [*shared, encode(rest)]


def one_row(columns: Sequence[Column], alias: str) -> str:
    """Return the FROM item that turns one JSON parameter, an array, into a row, on PostgreSQL."""
    picked = ", ".join(_picked(index, column) for index, column in enumerate(columns))
    return f"(SELECT {picked} FROM (SELECT %s::jsonb AS value) AS given) AS {alias}"  # noqa: S608  # names of ours


def _picked(index: int, column: Column) -> str:
    name, kind = column
    if connection.vendor == "postgresql":
        if kind == "bytea":
            return f"decode(value->>{index}, 'base64') AS {name}"
        return f"(value->>{index})::{kind} AS {name}"
    return f"json_extract(value, '$[{index}]') AS {name}"


def _item(picked: Sequence[str], alias: str, bound: str = "OFFSET 0") -> str:
    if connection.vendor == "sqlite":
        return f"(SELECT {', '.join(picked)} FROM json_each(%s)) AS {alias}"  # noqa: S608  # names of ours
    # The bound keeps constants in here: compared with a column from outside, PostgreSQL would
    # take few rows of the table for the right ones and go through the whole set for each.
    each = f"jsonb_array_elements(%s::jsonb) {bound}"
    return f"(SELECT {', '.join(picked)} FROM {each}) AS {alias}"  # noqa: S608  # names of ours


def encode(values: Iterable[Sequence[Any]]) -> str:
    """Return rows as the JSON parameter that `rows` reads."""
    if connection.vendor == "postgresql":
        return encode_one(list(values))
    # Asked once for all rows: Django finds out each time which thread's connection is meant.
    adapt = connection.ops.adapt_datetimefield_value

    def adapted(value: object) -> str:
        if isinstance(value, datetime):
            return str(adapt(value))
        raise TypeError(f"{type(value).__name__} cannot be a parameter of the ledger.")

    option = orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(list(values), default=adapted, option=option).decode()


def encode_one(value: Sequence[Any]) -> str:
    """Return a row as the JSON parameter that `one_row` reads."""
    return orjson.dumps(value, default=_base64).decode()


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be a parameter of the ledger.")


def moment(value: Any) -> datetime:
    """Return a time of a raw query; SQLite answers with text."""
    if isinstance(value, datetime):
        return value
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)


def timestamp(value: datetime) -> Any:
    """Return an aware datetime as the database's driver takes it."""
    return connection.ops.adapt_datetimefield_value(value)


def unindexed(column: str, key: str = "o.id") -> str:
    """Return a text column for a condition that must not choose the query's plan.

    A database would walk all waiting jobs by an index on `state` instead of looking up the few
    ids of a row set: SQLite always, PostgreSQL when it was last analysed while few waited. A
    unary plus forbids it SQLite ("The Query Optimizer", 3). For PostgreSQL it becomes a condition
    of the join: of one on the table alone it would guess that nearly no row fulfils it, read the
    table first and compare each of its rows with each of the set.

    Args:
        column: the column, with its table.
        key: a text column of what it is joined with.
    """
    if connection.vendor == "sqlite":
        return f"+{column}"
    return f"({column} || left({key}, 0))"


@contextmanager
def in_index_order() -> Iterator[None]:
    """Run a transaction in which PostgreSQL does not sort where an index has the order.

    For "the first thousand of what waits". A database that was last analysed while little waited
    takes a million rows for a few: it would read and sort all of them for each thousand. SQLite,
    without knowledge, takes the index.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_sort = off")
        yield


def milliseconds(later: str, earlier: str) -> str:
    """Return the SQL for the milliseconds between two columns with times; NULL without one."""
    if connection.vendor == "postgresql":
        return f"EXTRACT(EPOCH FROM ({later} - {earlier}))::float8 * 1000"
    return f"(julianday({later}) - julianday({earlier})) * 86400000.0"
