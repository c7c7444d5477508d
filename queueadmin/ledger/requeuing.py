"""Gives dead jobs a new round of attempts."""

from collections.abc import Iterable

from django.db.models import F

from ..clock import now
from ..models import Job
from ..states import JobState


def requeue(job_ids: Iterable[str]) -> set[str]:
    """Move dead jobs back to waiting with a new round of attempts; return those that moved.

    Call it in a transaction, and hand the ids to `queueadmin.outbox.push_jobs` there.
    Rows are locked in the order of their ids, so that two callers cannot lock each other
    out; of two callers each job is returned to one.
    """
    wanted = sorted(set(job_ids))
    locked = list(
        Job.objects.select_for_update()
        .filter(id__in=wanted, state=JobState.DEAD)
        .order_by("id")
        .values_list("id", flat=True)
    )
    Job.objects.filter(id__in=locked, state=JobState.DEAD).update(
        state=JobState.WAITING,
        dispatch=F("dispatch") + 1,
        attempts=0,
        requeues=F("requeues") + 1,
        due_at=now(),
        started_at=None,
        finished_at=None,
        in_broker=False,
    )
    return set(locked)


def cancel_queue(queue: str) -> int:
    """Cancel every job of the queue that has not started; return how many those were."""
    return Job.objects.filter(
        queue=queue, state__in=(JobState.SCHEDULED, JobState.RETRYING, JobState.WAITING)
    ).update(state=JobState.CANCELLED, finished_at=now(), dispatch=F("dispatch") + 1)
