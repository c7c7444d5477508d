"""Gives dead jobs a new round of attempts."""

from collections.abc import Iterable
from typing import NamedTuple

from django.db import transaction
from django.db.models import F

from ..clock import now
from ..models import Job
from ..states import JobState
from . import unique


class Requeued(NamedTuple):
    """Jobs that run again, and those that may not because another one holds their key."""

    moved: set[str]
    held: dict[str, str]


def requeue(job_ids: Iterable[str]) -> Requeued:
    """Move dead jobs back to waiting with a new round of attempts; return those that moved.

    A job takes its unique key again; where another one holds it, the job stays dead, as does
    one whose payload was erased. Call it in a transaction, and hand the ids to
    `queueadmin.outbox.push_jobs` there.
    Rows are locked in the order of their ids, so that two callers cannot lock each other
    out; of two callers each job is returned to one.
    """
    wanted = sorted(set(job_ids))
    at = now()
    rows = list(
        Job.objects.select_for_update()
        .among(wanted, JobState.DEAD)
        .filter(erased_at=None)
        .order_by("id")
        .values_list("id", "actor", "unique_key", "unique_until")
    )
    held = unique.claim(
        unique.Claim(actor, key, job, until)
        for job, actor, key, until in rows
        if key and (until is None or until > at)
    )
    locked = [row[0] for row in rows if row[0] not in held]
    Job.objects.among(locked, JobState.DEAD).update(
        state=JobState.WAITING,
        dispatch=F("dispatch") + 1,
        attempts=0,
        crashes=0,
        is_suspect=False,
        requeues=F("requeues") + 1,
        due_at=at,
        cancel_requested_at=None,
        started_at=None,
        finished_at=None,
        parked_at=None,
        in_broker=False,
    )
    return Requeued(set(locked), held)


def cancel_queue(queue: str) -> int:
    """Cancel every job of the queue that has not started; return how many those were."""
    jobs = Job.objects.filter(queue=queue)
    with transaction.atomic():
        number = jobs.filter(
            state__in=(JobState.SCHEDULED, JobState.RETRYING, JobState.WAITING)
        ).update(state=JobState.CANCELLED, finished_at=now(), dispatch=F("dispatch") + 1)
        keyed = jobs.filter(state=JobState.CANCELLED).exclude(unique_key="")
        unique.release((), keyed.values_list("id", flat=True))
    return number
