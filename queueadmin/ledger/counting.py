"""Adds what a batch of endings changed to the statistics of its minutes."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from zlib import crc32

from django.db import connection

from ..models.statistic import BOUNDS_MS, COUNTERS, RUN_BUCKETS, SUMS, WAIT_BUCKETS
from ..states import JobState, Outcome
from . import sql

if TYPE_CHECKING:
    from .endings import Ending

#: Rows per minute and actor; more than a host has worker processes, so that few share one.
SHARDS = 64
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
_PLACE = {name: index for index, (name, _) in enumerate(_NUMBERS)}
_RUN, _WAIT = _PLACE[RUN_BUCKETS[0]], _PLACE[WAIT_BUCKETS[0]]
_COUNTER = {
    Outcome.COMPLETED: _PLACE["completed"],
    Outcome.RETRYING: _PLACE["retried"],
    Outcome.DEAD: _PLACE["dead"],
    Outcome.CANCELLED: _PLACE["cancelled"],
    Outcome.RETURNED: _PLACE["returned"],
}
_ENDED = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)


def count(endings: "Sequence[Ending]", waits_ms: Mapping[str, float | None]) -> None:
    """Count accepted endings in the transaction that records them.

    Args:
        endings: those that changed a row; what was stale is not counted.
        waits_ms: by job, how long its last run waited to start.
    """
    totals: dict[tuple[datetime, str, str, int], list[float]] = {}
    for ending in endings:
        key = (
            ending.finished_at.replace(second=0, microsecond=0),
            ending.queue,
            ending.actor,
            crc32(ending.worker.encode()) % SHARDS,
        )
        row = totals.get(key)
        if row is None:
            row = totals[key] = [0] * len(_NUMBERS)
        _add(row, ending, waits_ms.get(ending.job))
    if not totals:
        return
    names = ", ".join(name for name, _ in _COLUMNS)
    added = ", ".join(
        f"{name} = queueadmin_minutestatistic.{name} + excluded.{name}" for name, _ in _NUMBERS
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO queueadmin_minutestatistic ({names}) "  # noqa: S608  # constants only
            # SQLite takes ON for a join's without the WHERE.
            f"SELECT {names} FROM {sql.rows(_COLUMNS, 'o')} WHERE true "
            f"ON CONFLICT (minute, queue, actor, shard) DO UPDATE SET {added}",
            # Sorted: two recorders that share rows wait for each other instead of deadlocking.
            [sql.encode((*key, *row) for key, row in sorted(totals.items()))],
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
