"""Records how runs ended: one transaction for a whole batch, before the broker lets go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from django.db import connection, transaction

from ..fingerprints import fingerprint
from ..models import DeadLetter, Job
from ..states import RUNNABLE, DeadLetterStatus, DeathCause, JobState, Outcome
from . import counting, grouping, sql, unique
from .dispatching import Parcel, parcels_of
from .enqueuing import NewJob, insert

_RUNNABLE = ", ".join(f"'{state.value}'" for state in RUNNABLE)
# 300 rows of 15 columns stay far below SQLite's bound of parameters.
_BATCH = 300


@dataclass(slots=True, kw_only=True)
class Ending:
    """How one dispatch of a job ended, as a worker reports it.

    `due_at` is set for retrying and scheduled (parked) jobs. `attempt` is the number of
    the execution, 0 where none took place or none counts. A retry that is due at once
    (`due_at` not after `finished_at`) goes straight back to waiting.
    """

    job: str
    dispatch: int
    state: JobState
    outcome: Outcome
    attempt: int
    started_at: datetime
    finished_at: datetime
    duration_ms: float = 0.0
    due_at: datetime | None = None
    delay_ms: int | None = None
    queue: str = ""
    actor: str = ""
    worker: str = ""
    release: str = ""
    max_attempts: int | None = None
    error_class: str = ""
    error_message: str = ""
    traceback: str = ""
    cause: DeathCause | None = None
    result: str | None = None
    raw: bytes | None = None
    follow_ups: list[NewJob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch: who counted, what was late, what has to be pushed now."""

    accepted: set[str]
    stale: list[Ending]
    parcels: list[Parcel]


_UPDATED = (
    ("id", "text"),
    ("dispatch", "integer"),
    ("state", "text"),
    ("attempts", "integer"),
    ("step", "integer"),
    ("due_at", "timestamptz"),
    ("started_at", "timestamptz"),
    ("finished_at", "timestamptz"),
    ("ended_at", "timestamptz"),
    ("worker", "text"),
    ("error_class", "text"),
    ("error_message", "text"),
    ("result", "text"),
    ("max_attempts", "integer"),
)
_ATTEMPT = (
    ("job_id", "text"),
    ("dispatch", "integer"),
    ("number", "integer"),
    ("outcome", "text"),
    ("started_at", "timestamptz"),
    ("duration_ms", "double precision"),
    ("delay_ms", "bigint"),
    ("worker", "text"),
    ("release", "text"),
    ("error_class", "text"),
    ("error_message", "text"),
    ("traceback", "text"),
)


def commit(endings: Sequence[Ending]) -> Committed:
    """Record a batch of endings in one transaction.

    Each is accepted only for the job's current dispatch and only while it may run, so a
    worker that was declared dead and wakes up late changes nothing. Replaying a batch
    whose answer was lost is safe: everything in it is stale the second time.

    Raises:
        django.db.Error: nothing of the batch is recorded.
    """
    if _is_plain(endings) and _commit_plain(endings[0]):
        return Committed({endings[0].job}, [], [])
    endings = sorted(_newest_per_job(endings), key=lambda ending: ending.job)
    with transaction.atomic():
        with sql.prepared_cursor() if len(endings) == 1 else connection.cursor() as cursor:
            given, parameters = sql.row_set(_UPDATED, [_updated(each) for each in endings], "o")
            cursor.execute(
                f"{_update_sql(given)} RETURNING "
                "queueadmin_job.id, queueadmin_job.requeues, queueadmin_job.state, "
                f"queueadmin_job.unique_key <> '', {_waited_ms()}",
                parameters,
            )
            updated = {job: row for job, *row in cursor.fetchall()}
        requeues = {job: row[0] for job, row in updated.items()}
        accepted = [ending for ending in endings if ending.job in requeues]
        for ending in accepted:
            if updated[ending.job][1] == JobState.CANCELLED:
                # It would have run again, had nobody asked to cancel it.
                ending.state, ending.outcome = JobState.CANCELLED, Outcome.CANCELLED
        dead = [ending for ending in accepted if ending.state == JobState.DEAD]
        letters = _bury(dead)
        keyed = {ending.job: ending.state for ending in accepted if updated[ending.job][2]}
        follow_ups = [job for ending in accepted for job in ending.follow_ups]
        if letters and (keyed or follow_ups):
            # Whoever requeues locks letters before unique keys.
            sql.insert_all(letters, is_usual=False)
            letters = []
        _recover(
            [
                ending.job
                for ending in accepted
                if ending.state == JobState.COMPLETED and requeues[ending.job]
            ],
            endings[0].finished_at,
        )
        _release(keyed)
        new = insert(follow_ups) if follow_ups else set()
        parcels = _again([ending.job for ending in accepted if ending.state == JobState.WAITING])
        # Last, and the groups at the end, as whoever triages locks letters before their group:
        # rows that recorders share are locked no longer than the commit takes.
        added = [
            *_note_attempts([ending for ending in accepted if ending.attempt]),
            *letters,
            *counting.count(accepted, {job: row[3] for job, row in updated.items()}),
            *grouping.group(dead),
        ]
        if added:
            # Jobs that end one by one, on workers with little to do, are told apart by no more
            # than whether they died.
            sql.insert_all(added, is_usual=len(accepted) == 1)
    parcels += [
        Parcel(job.id, 1, job.queue, job.priority, job.message)
        for job in follow_ups
        if job.id in new and job.due_at is None
    ]
    stale = [ending for ending in endings if ending.job not in requeues]
    return Committed(set(requeues), stale, parcels)


def _is_plain(endings: Sequence[Ending]) -> bool:
    """Return whether this is one outcome that most likely changes nothing besides its job.

    So end most jobs of workers with little to do. SQLite has no statement with several parts that
    write, and is asked without a wire.
    """
    if len(endings) != 1 or connection.vendor != "postgresql":
        return False
    (ending,) = endings
    is_usual = ending.state in (JobState.COMPLETED, JobState.RETRYING)
    return is_usual and ending.attempt > 0 and not ending.follow_ups


def _commit_plain(ending: Ending) -> bool:
    """Record an outcome with one question to PostgreSQL, where `commit` asks four.

    Return False, having changed nothing, if more hangs on it than its statement does: the job
    holds a unique key, was asked to stop or completes after a requeue; or if it is stale.

    The one condition that decides is in the UPDATE, as in `commit`, and the other parts add
    nothing without its row. The main part asks for that row before it writes, so the job is
    locked before the row of the statistics, as there. Attempts are nobody else's.
    """
    parameters = [_updated(ending), _attempt(ending), counting.minute(ending)]
    with sql.prepared_cursor() as cursor:
        cursor.execute(
            _plain_sql(ending.state == JobState.RETRYING),
            [sql.encode_one(each) for each in parameters],
        )
        return bool(cursor.rowcount)


@cache
def _plain_sql(is_retry: bool) -> str:
    # Written once: the processor of a worker with little to do has to fetch whatever code it runs.
    names = ", ".join(name for name, _ in _ATTEMPT)
    added = ", ".join(f"o.{name}" for name, _ in _ATTEMPT)
    return (
        f"WITH ended AS ({_update_sql(sql.one_row(_UPDATED, 'o'))} "  # noqa: S608  # constants only
        "AND queueadmin_job.unique_key = '' AND queueadmin_job.cancel_requested_at IS NULL "
        f"{'' if is_retry else 'AND queueadmin_job.requeues = 0 '}"
        f"RETURNING {_waited_ms()} AS waited_ms), "
        f"noted AS (INSERT INTO queueadmin_attempt ({names}) "
        f"SELECT {added} FROM {sql.one_row(_ATTEMPT, 'o')}, ended) "
        f"{counting.count_plain_sql('ended', has_waited=not is_retry)}"
    )


def _newest_per_job(endings: Sequence[Ending]) -> list[Ending]:
    """Keep one ending per job, that of its latest dispatch; any other is stale.

    A worker that was frozen may report a run that others were given meanwhile together with
    the next one, which it was given itself.
    """
    newest: dict[str, Ending] = {}
    for ending in endings:
        known = newest.setdefault(ending.job, ending)
        if ending.dispatch > known.dispatch:
            newest[ending.job] = ending
    return list(newest.values())


def _update_sql(given: str) -> str:
    # Who was asked to stop gets no further run, however the last one ended.
    cancelled = (
        "queueadmin_job.cancel_requested_at IS NOT NULL "
        "AND o.state IN ('waiting', 'scheduled', 'retrying')"
    )
    return (
        "UPDATE queueadmin_job SET "  # noqa: S608  # constants only
        f"state = CASE WHEN {cancelled} THEN 'cancelled' ELSE o.state END, attempts = COALESCE(o.attempts, queueadmin_job.attempts), dispatch = o.dispatch + o.step, "
        "due_at = COALESCE(o.due_at, queueadmin_job.due_at), "
        "started_at = COALESCE(o.started_at, queueadmin_job.started_at), "
        f"finished_at = CASE WHEN {cancelled} THEN o.ended_at ELSE o.finished_at END, worker = o.worker, error_class = o.error_class, "
        "error_message = o.error_message, result = COALESCE(o.result, queueadmin_job.result), "
        "max_attempts = COALESCE(o.max_attempts, queueadmin_job.max_attempts), in_broker = false, "
        "is_suspect = (queueadmin_job.crashes > 0), "
        # Only what is parked becomes scheduled by an ending; the first time counts.
        "parked_at = CASE WHEN o.state = 'scheduled' "
        "THEN COALESCE(queueadmin_job.parked_at, o.ended_at) END "
        f"FROM {given} "
        "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
        f"AND {sql.unindexed('queueadmin_job.state')} IN ({_RUNNABLE})"
    )


def _waited_ms() -> str:
    return sql.milliseconds("queueadmin_job.started_at", "queueadmin_job.due_at")


def _updated(ending: Ending) -> tuple[object, ...]:
    is_final = ending.state in (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
    return (
        ending.job,
        ending.dispatch,
        ending.state.value,
        # What did not count leaves the counter as it is.
        ending.attempt or None,
        # The next push gets a new number before it happens; see `dispatching.rescue`.
        0 if is_final else 1,
        ending.due_at,
        ending.started_at if ending.attempt else None,
        ending.finished_at if is_final else None,
        ending.finished_at,
        ending.worker,
        ending.error_class,
        ending.error_message,
        ending.result,
        ending.max_attempts,
    )


def _attempt(ending: Ending) -> tuple[object, ...]:
    return (
        ending.job,
        ending.dispatch,
        ending.attempt,
        ending.outcome.value,
        ending.started_at,
        ending.duration_ms,
        ending.delay_ms,
        ending.worker,
        ending.release,
        ending.error_class,
        ending.error_message,
        ending.traceback,
    )


def _note_attempts(endings: list[Ending]) -> list[sql.Statement]:
    """Return what adds the attempts to the ledger."""
    if not endings:
        return []
    names = ", ".join(name for name, _ in _ATTEMPT)
    given, parameters = sql.row_set(_ATTEMPT, [_attempt(ending) for ending in endings], "o")
    statement = f"INSERT INTO queueadmin_attempt ({names}) SELECT {names} FROM {given}"  # noqa: S608
    return [(statement, parameters)]


def _bury(endings: list[Ending]) -> list[sql.Statement]:
    """Return what opens a dead letter for each job that died, or reopens the one it has."""
    statements: list[sql.Statement] = []
    row = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1, %s, 1, %s, '', true)"
    for start in range(0, len(endings), _BATCH):
        batch = endings[start : start + _BATCH]
        parameters = [
            parameter
            for ending in batch
            for parameter in (
                ending.job,
                DeadLetterStatus.PENDING.value,
                (ending.cause or DeathCause.ATTEMPTS_EXHAUSTED).value,
                ending.queue,
                ending.actor,
                ending.error_class,
                ending.error_message,
                ending.traceback,
                fingerprint(ending.actor, ending.error_class, ending.error_message),
                ending.release,
                ending.worker,
                ending.attempt,
                ending.raw,
                sql.timestamp(ending.finished_at),
            )
        ]
        statements.append(
            (
                "INSERT INTO queueadmin_deadletter (job_id, status, died_by, queue, actor, "  # noqa: S608
                "error_class, error_message, traceback, fingerprint, release, worker, attempts, deaths, raw, "
                "urgency, died_at, closing_reason, awaits_rules) "
                f"VALUES {', '.join([row] * len(batch))} "
                "ON CONFLICT (job_id) DO UPDATE SET status = excluded.status, "
                "died_by = excluded.died_by, error_class = excluded.error_class, "
                "error_message = excluded.error_message, traceback = excluded.traceback, "
                "fingerprint = excluded.fingerprint, release = excluded.release, "
                "worker = excluded.worker, attempts = excluded.attempts, "
                "deaths = queueadmin_deadletter.deaths + 1, died_at = excluded.died_at, "
                # Who has it keeps it; that it failed again is no reason to leave it alone.
                "awaits_rules = queueadmin_deadletter.assignee_id IS NULL, snoozed_at = NULL, "
                "snoozed_until = NULL, snoozed_deaths = NULL, snoozed_release = ''",
                parameters,
            )
        )
    return statements


def _recover(job_ids: list[str], at: datetime) -> None:
    """Close the dead letters of requeued jobs that completed."""
    if job_ids:
        DeadLetter.objects.filter(job_id__in=job_ids, status=DeadLetterStatus.REQUEUED).update(
            status=DeadLetterStatus.RECOVERED, recovered_at=at
        )


def _release(keyed: dict[str, JobState]) -> None:
    """Release the unique keys of those that will not run again by themselves."""
    failed = (JobState.DEAD, JobState.CANCELLED)
    unique.release(
        [job for job, state in keyed.items() if state == JobState.COMPLETED],
        [job for job, state in keyed.items() if state in failed],
    )


def _again(job_ids: list[str]) -> list[Parcel]:
    """Return the parcels of jobs that go straight back to waiting."""
    if not job_ids:
        return []
    return parcels_of(Job.objects.filter(id__in=job_ids))


def show_progress(runs: Sequence[tuple[str, int, int, int | None, str]]) -> int:
    """Show how far jobs have come.

    Args:
        runs: (job id, dispatch, done, total, text) of each.
    """
    columns = (
        ("id", "text"),
        ("dispatch", "integer"),
        ("done", "bigint"),
        ("total", "bigint"),
        ("words", "text"),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE queueadmin_job SET progress_done = o.done, progress_total = o.total, "  # noqa: S608
            f"progress_text = o.words FROM {sql.rows(columns, 'o')} "
            "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
            f"AND {sql.unindexed('queueadmin_job.state')} IN ({_RUNNABLE})",
            [sql.encode(sorted(runs, key=lambda run: run[0]))],
        )
        return int(cursor.rowcount)


def mark_active(runs: Sequence[tuple[str, int, datetime, str]]) -> int:
    """Show jobs that have been running for a moment as active.

    Args:
        runs: (job id, dispatch, start, worker) of each.
    """
    columns = (
        ("id", "text"),
        ("dispatch", "integer"),
        ("started_at", "timestamptz"),
        ("worker", "text"),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE queueadmin_job SET state = 'active', started_at = o.started_at, "  # noqa: S608
            f"worker = o.worker FROM {sql.rows(columns, 'o')} "
            "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
            f"AND {sql.unindexed('queueadmin_job.state')} = 'waiting'",
            [sql.encode(sorted(runs))],
        )
        return int(cursor.rowcount)
