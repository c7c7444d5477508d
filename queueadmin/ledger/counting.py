"""Adds what a batch of endings changed to the statistics of its minutes, and to the totals."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zlib import crc32

from django.db import connection, transaction

from ..models import MinuteStatistic
from ..models.statistic import BOUNDS_MS, COUNTERS, DEATHS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from ..states import DeathCause, JobState, Outcome
from . import sql

if TYPE_CHECKING:
    from .endings import Ending

#: Rows per minute and actor; more than a host has worker processes, so that few share one.
SHARDS = 64
#: The shard of what is in the sums since the beginning.
FOLDED = SHARDS
# Keeps each transaction, and so each row lock, short.
_FOLDED_AT_ONCE = 1_000
#: What counts for all names that no actor has: they may be any text, and sums are kept for good.
UNKNOWN = "(unknown)"
_KEYS = (
    ("minute", "timestamptz"),
    ("queue", "text"),
    ("actor", "text"),
    ("shard", "smallint"),
)
_NUMBERS = (
    *((name, "bigint") for name in COUNTERS),
    *((name, "float8") for name in SUMS),
    *((name, "bigint") for name in (*RUN_BUCKETS, *WAIT_BUCKETS)),
)
_COLUMNS = _KEYS + _NUMBERS
_DEATHS = tuple((name, "bigint") for name in DEATHS)
_TOTAL_NUMBERS = _NUMBERS + _DEATHS
_TOTAL_COLUMNS = _KEYS[1:] + _TOTAL_NUMBERS
_PLACE = {name: index for index, (name, _) in enumerate(_NUMBERS)}
_RUN, _WAIT = _PLACE[RUN_BUCKETS[0]], _PLACE[WAIT_BUCKETS[0]]
_COUNTER = {
    Outcome.COMPLETED: _PLACE["completed"],
    Outcome.RETRYING: _PLACE["retried"],
    Outcome.DEAD: _PLACE["dead"],
    Outcome.CANCELLED: _PLACE["cancelled"],
    Outcome.RETURNED: _PLACE["returned"],
}
_DEATH = {cause: len(_NUMBERS) + place for place, cause in enumerate(DeathCause)}
_ENDED = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
_MINUTES = "queueadmin_minutestatistic"
# What `_add` adds for a wait, in SQL.
_WAITED = "GREATEST(waited_ms, 0)"
_WAITS = {"wait_ms": _WAITED} | {
    name: f"({_WAITED} > {low} AND {_WAITED} <= {high})::int"
    for name, low, high in zip(
        WAIT_BUCKETS, (-1, *BOUNDS_MS), (*BOUNDS_MS, "'infinity'"), strict=True
    )
}


def count(endings: "Sequence[Ending]", waits_ms: Mapping[str, float | None]) -> list[sql.Statement]:
    """Return the INSERTs that count accepted endings, for the transaction that records them.

    Args:
        endings: those that changed a row; what was stale is not counted.
        waits_ms: by job, how long its last run waited to start.
    """
    minutes: dict[tuple[datetime, str, str, int], list[float]] = {}
    deaths: dict[tuple[str, str, int], list[float]] = {}
    for ending in endings:
        key = _key(ending)
        row = minutes.get(key)
        if row is None:
            row = minutes[key] = [0] * len(_NUMBERS)
        _add(row, ending, waits_ms.get(ending.job))
        if ending.state == JobState.DEAD:
            died = deaths.setdefault(key[1:], [0] * len(_TOTAL_NUMBERS))
            died[_DEATH[ending.cause or DeathCause.ATTEMPTS_EXHAUSTED]] += 1
    # Minutes first everywhere, and sorted: two recorders that share rows wait for each other
    # instead of deadlocking.
    counted = [_upsert(_MINUTES, _COLUMNS, 4, minutes)] if minutes else []
    if deaths:
        counted.append(_upsert("queueadmin_statistictotal", _TOTAL_COLUMNS, 3, deaths))
    return counted


def minute(ending: "Ending") -> tuple[Any, ...]:
    """Return the row of the statistics that one ending adds to, without how long it waited."""
    row: list[float] = [0] * len(_NUMBERS)
    _add(row, ending, None)
    return (*_key(ending), *row)


def count_plain_sql(ended: str, *, has_waited: bool) -> str:
    """Return the INSERT that counts an ending in the statement that records it, on PostgreSQL.

    Its parameter is what `minute` returns, encoded.

    Args:
        ended: the part of the statement that has a row if the ending is accepted, with the
            milliseconds the job waited in `waited_ms`.
        has_waited: whether that counts.
    """
    source = f"{sql.one_row(_COLUMNS, 'o')}, {ended}"
    return _upsert_sql(_MINUTES, _COLUMNS, 4, source, _WAITS if has_waited else {})


def fold(before: datetime) -> int:
    """Add minutes that are over to the sums since the beginning; return how many rows.

    The rows of a minute become one, whose shard says that it is in the sums. An outcome that
    comes later still makes a row beside it, which the next fold adds. In one transaction per
    batch with the rows locked, in the order in which recorders lock them, so everything is
    counted once, whoever folds at the same time.
    """
    total = 0
    while folded := _fold_some(before):
        total += folded
    return total


def _fold_some(before: datetime) -> int:
    names = ", ".join(name for name, _ in _NUMBERS)
    sums = ", ".join(f"SUM({name})" for name, _ in _NUMBERS)
    no_deaths = ", ".join("0" for _ in _DEATHS)
    chosen = f"WHERE id IN (SELECT id FROM {sql.rows((('id', 'bigint'),), 'o')})"  # noqa: S608
    minutes = _MINUTES
    rows = MinuteStatistic.objects.filter(minute__lt=before, shard__lt=SHARDS)
    with transaction.atomic(), connection.cursor() as cursor:
        locked = rows.select_for_update().order_by("minute", "queue", "actor", "shard")
        ids = list(locked.values_list("pk", flat=True)[:_FOLDED_AT_ONCE])
        if not ids:
            return 0
        given = [sql.encode([pk] for pk in ids)]
        cursor.execute(
            f"INSERT INTO {minutes} (minute, queue, actor, shard, {names}) "  # noqa: S608
            f"SELECT minute, queue, actor, {FOLDED}, {sums} FROM {minutes} {chosen} "
            "GROUP BY minute, queue, actor "
            f"ON CONFLICT (minute, queue, actor, shard) DO UPDATE SET {_added(minutes, _NUMBERS)}",
            given,
        )
        totals = "queueadmin_statistictotal"
        cursor.execute(
            f"INSERT INTO {totals} "  # noqa: S608  # constants only
            f"(queue, actor, shard, {names}, {', '.join(DEATHS)}) "
            f"SELECT queue, actor, {FOLDED}, {sums}, {no_deaths} FROM {minutes} {chosen} "
            "GROUP BY queue, actor ORDER BY queue, actor "
            f"ON CONFLICT (queue, actor, shard) DO UPDATE SET {_added(totals, _NUMBERS)}",
            given,
        )
        cursor.execute(f"DELETE FROM {minutes} {chosen}", given)  # noqa: S608  # constants only
    return len(ids)


def sums(names: Sequence[str]) -> str:
    """Return the columns of a SELECT that adds these up.

    In words, because Django takes longer to write fifty sums than the database to add them.
    """
    # PostgreSQL's sum of whole numbers would be a Decimal.
    return ", ".join(f"CAST(SUM({name}) AS double precision)" for name in names)


def _added(table: str, columns: tuple[sql.Column, ...]) -> str:
    """Return the SET of an upsert that adds to the row there is."""
    return ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name, _ in columns)


def _shard(ending: "Ending") -> int:
    return crc32(ending.worker.encode()) % SHARDS


def _is_unknown(ending: "Ending") -> bool:
    """Return whether no actor has been found for it: its name may be any text."""
    return not ending.attempt and (
        ending.state == JobState.SCHEDULED
        or ending.cause in (DeathCause.UNKNOWN_ACTOR, DeathCause.UNDECODABLE)
    )


def _upsert(
    table: str,
    columns: tuple[sql.Column, ...],
    keys: int,
    rows: Mapping[tuple[Any, ...], list[float]],
) -> sql.Statement:
    """Return what adds rows to those with the same keys, which are the first `keys` columns."""
    return (
        _upsert_sql(table, columns, keys, sql.rows(columns, "o")),
        [sql.encode((*key, *row) for key, row in sorted(rows.items()))],
    )


def _upsert_sql(
    table: str,
    columns: tuple[sql.Column, ...],
    keys: int,
    source: str,
    given: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the text for `_upsert`; `given` has what to add instead of a column of the source."""
    names = ", ".join(name for name, _ in columns)
    conflict = ", ".join(name for name, _ in columns[:keys])
    return (
        f"INSERT INTO {table} ({names}) "  # noqa: S608  # constants only
        # SQLite takes ON for a join's without the WHERE.
        f"SELECT {', '.join(given.get(name, name) for name, _ in columns)} FROM {source} WHERE true "
        f"ON CONFLICT ({conflict}) DO UPDATE SET {_added(table, columns[keys:])}"
    )


def _key(ending: "Ending") -> tuple[datetime, str, str, int]:
    actor = UNKNOWN if _is_unknown(ending) else ending.actor
    return (
        ending.finished_at.replace(second=0, microsecond=0),
        ending.queue,
        actor,
        _shard(ending),
    )


def _add(row: list[float], ending: "Ending", wait_ms: float | None) -> None:
    row[_COUNTER[ending.outcome]] += 1
    if not ending.attempt:
        return
    row[_PLACE["run_ms"]] += ending.duration_ms
    row[_RUN + bisect_left(BOUNDS_MS, ending.duration_ms)] += 1
    if wait_ms is not None and ending.state in _ENDED:
        waited = max(wait_ms, 0.0)
        row[_PLACE["wait_ms"]] += waited
        row[_WAIT + bisect_left(BOUNDS_MS, waited)] += 1
