"""Adds jobs, in the caller's own transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from ..states import JobState, Priority
from .sql import timestamp

# 500 rows of 12 columns stay far below SQLite's 32,766 and PostgreSQL's 65,535 parameters.
_BATCH = 500
_COLUMNS = (
    "id, queue, actor, priority, state, dispatch, attempts, max_attempts, requeues, message, "
    "subject, parent, worker, error_class, error_message, enqueued_at, due_at, in_broker, "
    "is_sealed"
)
_ROW = "(%s, %s, %s, %s, %s, 1, 0, %s, 0, %s, %s, %s, '', '', '', %s, %s, false, %s)"


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
    is_sealed: bool = False


def insert(jobs: Sequence[NewJob]) -> set[str]:
    """Add the jobs on the current connection and return the ids that were new.

    An id that stands in the ledger already is left as it is. ON CONFLICT rather than a
    caught IntegrityError, which would break the caller's transaction. Ids are sorted, so
    that two transactions which add the same jobs wait for each other instead of locking
    each other out.
    """
    added: set[str] = set()
    ordered = sorted(jobs, key=lambda job: job.id)
    with connection.cursor() as cursor:
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            cursor.execute(
                f"INSERT INTO queueadmin_job ({_COLUMNS}) "  # noqa: S608  # constants only
                f"VALUES {', '.join([_ROW] * len(batch))} "
                "ON CONFLICT (id) DO NOTHING RETURNING id",
                [parameter for job in batch for parameter in _parameters(job)],
            )
            added.update(row[0] for row in cursor.fetchall())
    return added


def _parameters(job: NewJob) -> tuple[str | int | bytes | datetime | None, ...]:
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
        timestamp(job.enqueued_at),
        timestamp(job.due_at or job.enqueued_at),
        job.is_sealed,
    )
