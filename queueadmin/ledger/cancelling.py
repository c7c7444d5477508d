"""Cancel, reschedule, run now: whatever people change about jobs that have not ended.

What lies in the ledger only (scheduled, retrying) is changed here for certain: the rows are
locked in the order of their ids and the state is asked again in the UPDATE, so that a
dispatcher that promotes them at the same moment wins or loses as a whole. A job that is
waiting or active may be in a worker's hands. Its cancel is noted on the row, and from then
on it can only end: nothing in the ledger gives it a new dispatch, and whoever takes its
message out of the broker, or knows that it did not start or has stopped, writes `cancelled`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import F

from ..clock import now
from ..models import Job
from ..states import RUNNABLE, TIMED, JobState
from . import sql, unique
from .dispatching import Parcel, parcels_of

if TYPE_CHECKING:
    from django.db.models import QuerySet


class Ended(NamedTuple):
    """A job that was cancelled, with what a log line says about it."""

    job: str
    queue: str
    actor: str


class Cancelled(NamedTuple):
    """What a cancel did: jobs certain never to run, and those that have to be stopped."""

    done: list[Ended]
    stopping: list[Parcel]


def cancel(job_ids: Iterable[str]) -> Cancelled:
    """Cancel what has not become due; note a cancel on what waits or runs.

    Call it in a transaction, and hand `stopping` to `queueadmin.dispatcher.withdraw` after
    commit. Jobs that have ended, or whose cancel was noted before, are in neither list.
    """
    rows = _locked(job_ids, (*TIMED, *RUNNABLE)).filter(cancel_requested_at=None)
    found = list(rows.values_list("id", "queue", "actor", "state"))
    at = now()
    done = [Ended(*row[:3]) for row in found if row[3] in TIMED]
    held = [row[0] for row in found if row[3] in RUNNABLE]
    _end([job.job for job in done], TIMED, at)
    # Not confirmed any more, so that the dispatcher looks for it should this process die.
    Job.objects.filter(id__in=held).update(cancel_requested_at=at, in_broker=False)
    return Cancelled(done, parcels_of(Job.objects.filter(id__in=held).order_by("id")))


def cancelling(limit: int, before: datetime | None = None) -> list[Parcel]:
    """Return jobs that wait or run although a cancel was asked for.

    Args:
        limit: return so many at most, the oldest requests first.
        before: only those asked for before.
    """
    rows = Job.objects.cancelling().order_by("cancel_requested_at")
    if before is not None:
        rows = rows.filter(cancel_requested_at__lt=before)
    with sql.in_index_order():
        return parcels_of(rows[:limit])


def cancel_withdrawn(parcels: Iterable[Parcel]) -> list[Ended]:
    """Cancel jobs whose message no worker holds and none can fetch; return which those were.

    Call it in a transaction. Only the dispatch that was withdrawn counts.
    """
    number = {parcel.job: parcel.dispatch for parcel in parcels}
    rows = _locked(number, RUNNABLE).filter(cancel_requested_at__isnull=False)
    found = [
        Ended(job, queue, actor)
        for job, queue, actor, dispatch in rows.values_list("id", "queue", "actor", "dispatch")
        if dispatch == number[job]
    ]
    _end([job.job for job in found], RUNNABLE, now())
    return found


def _end(ids: list[str], states: Sequence[JobState], at: datetime) -> None:
    jobs = Job.objects.filter(id__in=ids)
    jobs.among(ids, *states).update(
        state=JobState.CANCELLED, finished_at=at, dispatch=F("dispatch") + 1, in_broker=False
    )
    keyed = jobs.exclude(unique_key="").values_list("id", flat=True)
    unique.release((), keyed)


def reschedule(
    job_ids: Iterable[str], to: datetime, withdraw: Callable[[list[Parcel]], set[str]]
) -> list[str]:
    """Make jobs that have not started due at `to`; return those that were moved.

    Call it in a transaction. What waits is in the broker: it is moved only when `withdraw`
    takes its message out, which it does at once and returns the jobs it took. Should the
    transaction roll back after that, recovery dispatches them again.
    """
    rows = _locked(job_ids, (*TIMED, JobState.WAITING)).filter(cancel_requested_at=None)
    found = dict(rows.values_list("id", "state"))
    timed = [job for job, state in found.items() if state in TIMED]
    waiting = [job for job, state in found.items() if state == JobState.WAITING]
    Job.objects.among(timed, *TIMED).update(due_at=to, parked_at=None)
    taken: set[str] = set()
    if waiting:
        taken = withdraw(parcels_of(Job.objects.filter(id__in=waiting)))
        Job.objects.among(taken, JobState.WAITING).update(
            state=JobState.SCHEDULED,
            due_at=to,
            parked_at=None,
            dispatch=F("dispatch") + 1,
            in_broker=False,
        )
    return [*timed, *(job for job in waiting if job in taken)]


def run_now(job_ids: Iterable[str]) -> list[str]:
    """Make scheduled and retrying jobs due now; return those that were.

    Call it in a transaction, and hand the ids to `queueadmin.outbox.push_jobs` there.
    """
    found = list(_locked(job_ids, TIMED).values_list("id", flat=True))
    Job.objects.among(found, *TIMED).update(state=JobState.WAITING, due_at=now(), in_broker=False)
    return found


def _locked(job_ids: Iterable[str], states: Sequence[JobState]) -> "QuerySet[Job]":
    return (
        Job.objects.select_for_update(no_key=True)
        .among(sorted(set(job_ids)), *states)
        .order_by("id")
    )
