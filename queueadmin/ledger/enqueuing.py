"""Adds jobs, in the caller's own transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from ..models import Job
from ..states import FINISHED, JobState, Priority
from . import sql, unique

# 500 rows of 15 columns stay far below SQLite's 32,766 parameters.
INSERT_BATCH = 500
_GIVEN = (
    ("id", "text"),
    ("queue", "text"),
    ("actor", "text"),
    ("priority", "smallint"),
    ("state", "text"),
    ("max_attempts", "integer"),
    ("message", "bytea"),
    ("subject", "text"),
    ("parent", "text"),
    ("group_key", "text"),
    ("unique_key", "text"),
    ("unique_until", "timestamptz"),
    ("enqueued_at", "timestamptz"),
    ("due_at", "timestamptz"),
    ("is_sealed", "boolean"),
)
_NAMES = ", ".join(name for name, _kind in _GIVEN)
_INSERT = (
    f"INSERT INTO queueadmin_job ({_NAMES}, dispatch, attempts, requeues, worker, error_class, "
    "error_message, in_broker) "
)
_CONSTANTS = "1, 0, 0, '', '', '', false"
_ROW = f"({', '.join(['%s'] * len(_GIVEN))}, {_CONSTANTS})"
# What most jobs have in a column needs no parameter; a parameter costs more than all of these.
_WRITTEN: dict[Any, str] = {None: "NULL", "": "''", False: "false", True: "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be added; `due_at` is None when it may run at once."""

    id: str
    queue: str
    actor: str
    message: bytes
    enqueued_at: datetime
    due_at: datetime | None = None
    priority: int = Priority.NORMAL
    max_attempts: int | None = None
    subject: str = ""
    parent: str = ""
    group: str = ""
    unique_key: str = ""
    #: How long it holds the key; None means while it is unfinished.
    unique_until: datetime | None = None
    is_sealed: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """Which jobs were new, and by which job the unique keys of others are held."""

    new: set[str]
    held: dict[str, str]


def insert(jobs: Sequence[NewJob]) -> set[str]:
    """Add the jobs as `add` does and return the ids that were new."""
    return add(jobs).new


def add(jobs: Sequence[NewJob]) -> Added:
    """Add the jobs on the current connection, in a transaction where one has a unique key.

    A job whose key another one holds is left out. An id that stands in the ledger already is
    left as it is. ON CONFLICT rather than a caught IntegrityError, which would break the
    caller's transaction. Ids are sorted, so that two transactions which add the same jobs wait
    for each other instead of locking each other out.
    """
    keyed = {job.id: job for job in jobs if job.unique_key}
    held = unique.claim(
        unique.Claim(job.actor, job.unique_key, job.id, job.unique_until) for job in keyed.values()
    )
    added: set[str] = set()
    ordered = sorted((job for job in jobs if job.id not in held), key=lambda job: job.id)
    if len(ordered) == 1:
        added.update(_add_one(ordered[0]))
        ordered = []
    for start in range(0, len(ordered), INSERT_BATCH):
        rows, parameters = _rows([_values(job) for job in ordered[start : start + INSERT_BATCH]])
        with connection.cursor() as cursor:
            cursor.execute(f"{_INSERT}{rows} ON CONFLICT (id) DO NOTHING RETURNING id", parameters)
            added.update(row[0] for row in cursor.fetchall())
    # The job stands in the ledger already: one that has ended would hold its key for ever.
    known = keyed.keys() - held.keys() - added
    if known:
        ended = Job.objects.filter(id__in=known, state__in=FINISHED).values_list("id", flat=True)
        unique.release((), ended)
    return Added(added, held)


def _add_one(job: NewJob) -> list[str]:
    """Add a job; return its id if it was new."""
    row, parameters = [], []
    for value in _values(job):
        # Numbers are parameters: 0 and 1 equal False and True.
        if value is None or isinstance(value, bool) or (isinstance(value, str) and not value):
            row.append(_WRITTEN[value])
        else:
            row.append("%s")
            parameters.append(value)
    values = f"VALUES ({', '.join(row)}, {_CONSTANTS})"
    with sql.prepared_cursor() as cursor:
        cursor.execute(f"{_INSERT}{values} ON CONFLICT (id) DO NOTHING", parameters)
        return [job.id] if cursor.rowcount else []


def _rows(values: list[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    """Return where an INSERT takes its rows from, and the parameters of that.

    They go to PostgreSQL as one row set, which takes it and the driver less than half as long as
    thousands of parameters.
    """
    if connection.vendor != "postgresql":
        rows = ", ".join([_ROW] * len(values))
        return f"VALUES {rows}", [value for of_one in values for value in of_one]
    given, parameters = sql.row_set(_GIVEN, values, "o")
    return f"SELECT {_NAMES}, {_CONSTANTS} FROM {given}", parameters  # noqa: S608  # constants only


def _values(job: NewJob) -> tuple[str | int | bytes | datetime | None, ...]:
    adapt = connection.ops.adapt_datetimefield_value
    return (
        job.id,
        job.queue,
        job.actor,
        job.priority,
        (JobState.SCHEDULED if job.due_at else JobState.WAITING).value,
        job.max_attempts,
        job.message,
        job.subject,
        job.parent,
        job.group,
        job.unique_key,
        adapt(job.unique_until) if job.unique_until is not None else None,
        adapt(job.enqueued_at),
        adapt(job.due_at or job.enqueued_at),
        job.is_sealed,
    )
