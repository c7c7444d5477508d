"""What has to go to the broker, and what to do about messages that went missing there."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connection, transaction
from dramatiq.message import Message

from .. import clock
from ..models import Job
from ..states import PARKED, RUNNABLE, TIMED, JobState
from . import sql

if TYPE_CHECKING:
    from django.db.models import QuerySet

_TIMED = ", ".join(f"'{state.value}'" for state in TIMED)
_RUNNABLE = ", ".join(f"'{state.value}'" for state in RUNNABLE)
# What a parcel is made of.
_COLUMNS = (
    *("id", "queue", "priority", "dispatch", "attempts", "requeues", "is_suspect", "parked_at"),
    "message",
)


class Parcel(NamedTuple):
    """One message on its way to the broker."""

    job: str
    dispatch: int
    queue: str
    priority: int
    data: bytes
    #: It has to be claimed in the ledger before it runs.
    is_suspect: bool = False

    @property
    def id(self) -> str:
        """The broker's id of this dispatch; pushing the same one twice changes nothing."""
        return f"{self.job}:{self.dispatch}{'?' if self.is_suspect else ''}"


def parcels_of(jobs: "QuerySet[Job]") -> list[Parcel]:
    """Return the parcels of the jobs' current dispatches, in the query's order."""
    return _parcels(jobs.values_list(*_COLUMNS))


def _parcels(rows: Iterable[Sequence[Any]]) -> list[Parcel]:
    return [
        Parcel(
            job,
            dispatch,
            queue,
            priority,
            _wire(bytes(message), attempts, requeues, parked_at),
            bool(is_suspect),
        )
        for job, queue, priority, dispatch, attempts, requeues, is_suspect, parked_at, message in rows
    ]


def _wire(message: bytes, attempts: int, requeues: int, parked_at: Any) -> bytes:
    """Return the message as it is pushed.

    Dramatiq's own `retries` option says how often it ran. A requeued job is as old as its
    new round, or `max_age` would bury it again at once. One that was parked says since when.
    """
    if not attempts and not requeues and parked_at is None:
        return message
    options: dict[str, Any] = {"retries": attempts}
    if parked_at is not None:
        options[PARKED] = int(sql.moment(parked_at).timestamp() * 1000)
    try:
        decoded = json.loads(message)
        decoded["options"].update(options)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _wire_of_another_encoder(message, options, requeues)
    if requeues:
        decoded["message_timestamp"] = clock.now_ms()
    return json.dumps(decoded, separators=(",", ":")).encode()


def _wire_of_another_encoder(message: bytes, options: dict[str, Any], requeues: int) -> bytes:
    try:
        decoded: Message[Any] = Message.decode(message)
        at = {"message_timestamp": clock.now_ms()} if requeues else {}
        return decoded.copy(**at, options=options).encode()
    except Exception:
        # Boundary: whatever bytes stand in the ledger. The consumer says what is wrong with them.
        return message


def promote_due(now: datetime, limit: int) -> list[Parcel]:
    """Move what is due from scheduled or retrying to waiting and return it for pushing.

    Two dispatchers may call it at once: the state is checked again in the UPDATE, so each
    job is returned to one of them only.
    """
    lock = " FOR UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else ""
    with sql.in_index_order(), connection.cursor() as cursor:
        # Materialised, or PostgreSQL might ask for the next ones again for each row it joins, and
        # be given others each time, because it skips those it has locked.
        cursor.execute(
            "WITH due AS MATERIALIZED (SELECT id FROM queueadmin_job "  # noqa: S608  # constants
            f"WHERE state IN ({_TIMED}) AND due_at <= %s ORDER BY due_at LIMIT %s{lock}) "
            "UPDATE queueadmin_job SET state = %s, in_broker = false FROM due "
            "WHERE queueadmin_job.id = due.id "
            f"AND {sql.unindexed('queueadmin_job.state', 'due.id')} IN ({_TIMED}) "
            f"RETURNING {', '.join(f'queueadmin_job.{column}' for column in _COLUMNS)}",
            [sql.timestamp(now), limit, JobState.WAITING.value],
        )
        return _parcels(cursor.fetchall())


def over(dispatches: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return those that will never count again: the job has ended, or has another number.

    One that the ledger does not know is not among them.
    """
    wanted = list(dispatches)
    rows = Job.objects.filter(id__in={job for job, _ in wanted})
    known = {
        job: (number, state) for job, number, state in rows.values_list("id", "dispatch", "state")
    }
    return {
        (job, dispatch)
        for job, dispatch in wanted
        if job in known and (dispatch < known[job][0] or known[job][1] not in RUNNABLE)
    }


def next_due() -> datetime | None:
    """Return when the next scheduled or retrying job is due."""
    timed = Job.objects.filter(state__in=TIMED).order_by("due_at")
    return timed.values_list("due_at", flat=True).first()


def unconfirmed(before: datetime, limit: int) -> list[Parcel]:
    """Return waiting jobs due before `before` that are not known to be in the broker."""
    rows = Job.objects.filter(state=JobState.WAITING, in_broker=False, due_at__lt=before).order_by(
        "due_at"
    )
    with sql.in_index_order():
        return parcels_of(rows[:limit])


def in_state(state: JobState, before: datetime, size: int) -> Iterator[list[Parcel]]:
    """Return, some at a time, the jobs in a state that were due before a time.

    Their ids come in one pass over the index of states; in steps by id the database would
    look through the whole ledger for them. The rows are read for each step, so what has
    moved on meanwhile is left out.
    """
    jobs = Job.objects.filter(due_at__lt=before)
    ids = jobs.filter(state=state).order_by().values_list("pk", flat=True)
    # A cursor of PostgreSQL's holds the ids there. SQLite must not write under an open one.
    found = ids.iterator(size) if connection.vendor == "postgresql" else iter(list(ids))
    while step := list(islice(found, size)):
        if parcels := parcels_of(jobs.among(step, state).order_by("pk")):
            yield parcels


def confirm(parcels: Iterable[Parcel]) -> int:
    """Note that these dispatches have reached the broker; return how many still wait."""
    wanted = [(parcel.job, parcel.dispatch) for parcel in sorted(parcels)]
    if not wanted:
        return 0
    found = sql.rows((("id", "text"), ("dispatch", "integer")), "o")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE queueadmin_job SET in_broker = true FROM {found} "  # noqa: S608
            "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
            f"AND {sql.unindexed('queueadmin_job.state')} = 'waiting'",
            [sql.encode(wanted)],
        )
        return int(cursor.rowcount)


def claim(job: str, dispatch: int, *, worker: str) -> int | None:
    """Start a suspect job in the ledger; return how often it crashed, or None if it is not ours.

    The slow path. Of two holders of copies one gets it: the dispatch number tells which
    copy counts, and the state whether it runs already. A job that is rescued at the same
    moment is either claimed before, and then `rescue` of what waits leaves it alone, or
    after, and then the number is another one.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE queueadmin_job SET state = 'active', started_at = %s, worker = %s "
            "WHERE id = %s AND dispatch = %s AND state = 'waiting' RETURNING crashes",
            [sql.timestamp(clock.now()), worker, job, dispatch],
        )
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def rescue(
    dispatches: Iterable[tuple[str, int]], states: Sequence[JobState] = RUNNABLE
) -> list[Parcel]:
    """Give jobs whose message is lost or in dead hands a new dispatch number, for pushing.

    The number is raised before anything is pushed: an outcome that the old holder still
    reports is stale from here on. Jobs that have moved on since are left alone, because
    an outcome is committed before its message leaves the broker; and so are those that
    somebody cancels, because a missing message makes their end certain.

    Args:
        dispatches: (job id, dispatch) of each.
        states: which of them to move; who saw them wait must not move those that were
            started since. Jobs that may have been started are suspect from now on.
    """
    # What only waited is in nobody's hands but those of holders that have to claim it.
    suspect = "true" if JobState.ACTIVE in states else "false"
    allowed = ", ".join(f"'{state.value}'" for state in states)
    wanted = sorted(dispatches)
    if not wanted:
        return []
    found = sql.rows((("id", "text"), ("dispatch", "integer")), "o")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE queueadmin_job SET state = 'waiting', dispatch = queueadmin_job.dispatch + 1, "  # noqa: S608
            f"is_suspect = (queueadmin_job.is_suspect OR {suspect}), in_broker = false FROM {found} "
            "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
            f"AND {sql.unindexed('queueadmin_job.state')} IN ({allowed}) "
            "AND queueadmin_job.cancel_requested_at IS NULL "
            f"RETURNING {', '.join(f'queueadmin_job.{column}' for column in _COLUMNS)}",
            [sql.encode(wanted)],
        )
        return _parcels(cursor.fetchall())
