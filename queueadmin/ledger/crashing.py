"""Counts the processes that died while they ran a job."""

from collections.abc import Iterable

from django.db import connection, transaction

from .. import clock
from ..models import Job
from ..states import RUNNABLE, DeathCause, JobState, Outcome
from . import sql
from .dispatching import Parcel, parcels_of
from .endings import Ending, commit

#: A job that was running in so many dead processes does not run again by itself.
MOST_CRASHES = 3
#: After so many it runs in a process of its own, or who shares its process is suspected too.
APART_FROM = 2

_RUNNABLE = ", ".join(f"'{state.value}'" for state in RUNNABLE)


def crashed(runs: Iterable[tuple[str, int]], *, worker: str) -> tuple[list[Parcel], list[Ending]]:
    """Count a crash of each (job, dispatch); bury those that had their last one.

    Each is counted only for the job's current dispatch, which is raised with it: a crash
    that is reported twice counts once, and what the dead process still had to report is
    stale.

    Returns:
        What is to be pushed again, and the endings of those that are dead.
    """
    wanted = sorted(runs)
    if not wanted:
        return [], []
    found = sql.rows((("id", "text"), ("dispatch", "integer")), "o")
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE queueadmin_job SET state = 'waiting', is_suspect = true, "  # noqa: S608
                "dispatch = queueadmin_job.dispatch + 1, in_broker = false, "
                f"crashes = queueadmin_job.crashes + 1 FROM {found} "
                "WHERE queueadmin_job.id = o.id AND queueadmin_job.dispatch = o.dispatch "
                f"AND {sql.unindexed('queueadmin_job.state')} IN ({_RUNNABLE}) "
                "AND queueadmin_job.cancel_requested_at IS NULL RETURNING queueadmin_job.id",
                [sql.encode(wanted)],
            )
            counted = [row[0] for row in cursor.fetchall()]
        jobs = Job.objects.filter(id__in=counted)
        dead = [_death(job, worker) for job in jobs.filter(crashes__gte=MOST_CRASHES)]
        if dead:
            commit(dead)
        again = parcels_of(jobs.filter(state=JobState.WAITING))
    return again, dead


def _death(job: Job, worker: str) -> Ending:
    at = clock.now()
    return Ending(
        job=job.id,
        dispatch=job.dispatch,
        state=JobState.DEAD,
        outcome=Outcome.DEAD,
        attempt=0,
        started_at=at,
        finished_at=at,
        queue=job.queue,
        actor=job.actor,
        worker=worker,
        cause=DeathCause.WORKER_CRASHED,
        error_class="WorkerCrashed",
        error_message=f"{job.crashes} worker processes died while they ran it.",
    )
