"""Removes what has been kept long enough, a little at a time.

An open dead letter is never removed, nor its job with it. One that is closed, because its job
recovered or somebody marked it permanently failed, goes with its job.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q, QuerySet

from . import alerts, audit, idempotency, ledger, scheduling, statistics
from .clock import now
from .conf import settings
from .exceptions import InvalidTransition
from .models import Attempt, DeadLetter, Effect, Job
from .policies import as_hours
from .states import FINISHED, DeadLetterStatus, JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# Keeps each transaction short beside the recorder's.
_BATCH = 500
#: What a policy calls its time for each state.
_KEEP = {
    JobState.COMPLETED: "keep_completed",
    JobState.CANCELLED: "keep_cancelled",
    JobState.DEAD: "keep_dead",
}


def apply_retention() -> dict[str, int]:
    """Delete finished jobs past their time, and what else is old; return how many per state.

    The time is that of the queue's policy, else KEEP_COMPLETED_HOURS for completed jobs and
    KEEP_CLOSED_HOURS for cancelled ones and for jobs whose dead letter was closed. Counted
    besides: rows of statistics that were added up or deleted. Also deleted, and not counted:
    unique keys and idempotency keys past their time, closed alerts and records of schedules.
    """
    ledger.prune()
    idempotency.prune()
    alerts.prune()
    scheduling.prune()
    removed = {state.value: _past_their_time(state) for state in _KEEP}
    return {**removed, "statistics": statistics.roll_up()}


def _past_their_time(state: JobState) -> int:
    is_completed = state == JobState.COMPLETED
    hours = settings.KEEP_COMPLETED_HOURS if is_completed else settings.KEEP_CLOSED_HOURS
    own = {
        queue: as_hours(keep)
        for queue, policy in settings.QUEUES.items()
        if (keep := getattr(policy, _KEEP[state])) is not None
    }
    at = now()
    jobs = Job.objects.filter(state=state)
    removed = _delete(_over(jobs.exclude(queue__in=own), at - timedelta(hours=hours)))
    for queue, keep in own.items():
        removed += _delete(_over(jobs.filter(queue=queue), at - keep))
    return removed


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a cleaning found and removed."""

    #: Jobs in these states and of that age.
    matched: int
    removed: int
    #: Those of them that stay, because their dead letters are open.
    held: int
    #: Those left for another call, because one removes at most BULK_LIMIT.
    left: int


def clean(
    states: Iterable[str],
    older_than: timedelta,
    queue: str | None = None,
    *,
    by: "User | None",
    reason: str = "",
    dry_run: bool = False,
) -> Cleaned:
    """Delete jobs that ended in one of these states longer ago than `older_than`.

    Args:
        states: of completed, cancelled and dead; a dead job goes only when its dead letter
            is closed.
        older_than: counted from the end of the job, or from when its dead letter was closed.
        queue: only of this queue.
        by: who asks; None for a program.
        reason: why, in that person's words.
        dry_run: only count.

    Raises:
        NotPermitted: `by` lacks the permission `clean_job`.
        ValueError: no state is given, or one in which jobs are unfinished, or a negative age.
    """
    audit.require(by, "clean_job")
    wanted = sorted(set(states))
    known = [state.value for state in FINISHED]
    if not wanted or not set(wanted) <= set(known):
        raise ValueError(
            f"Only jobs that have ended can be removed: {', '.join(known)}; "
            f"not {', '.join(map(repr, wanted)) or 'nothing'}."
        )
    if older_than < timedelta(0):
        raise ValueError(f"older_than is 0 or more, not {older_than}.")
    before = now() - older_than
    jobs = Job.objects.filter(state__in=wanted)
    if queue is not None:
        jobs = jobs.filter(queue=queue)
    matched = jobs.filter(finished_at__lt=before).count()
    removable = _over(jobs, before)
    number = removable.count()
    held = max(matched - number, 0)
    if dry_run:
        return Cleaned(matched, 0, held, max(number - settings.BULK_LIMIT, 0))
    # Before the first row goes, and committed by itself: what is removed piece by piece must
    # not be removed without a trace when the process dies in between.
    audit.record(
        "clean",
        "queue",
        [queue or "*"],
        by=by,
        reason=reason,
        states=wanted,
        before=before.isoformat(),
        jobs=min(number, settings.BULK_LIMIT),
    )
    removed = _delete(removable, most=settings.BULK_LIMIT)
    return Cleaned(matched, removed, held, max(number - removed, 0))


def remove(job_id: str, *, by: "User | None", reason: str = "") -> None:
    """Delete one job that has ended, with its attempts and its closed dead letter.

    Args:
        job_id: the job.
        by: who asks; None for a program.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` lacks the permission `clean_job`.
        Job.DoesNotExist: there is no such job (any more).
        InvalidTransition: it has not ended, or its dead letter is open.
    """
    audit.require(by, "clean_job")
    with transaction.atomic():
        if _delete_ended([job_id]):
            audit.record("remove", "job", [job_id], by=by, reason=reason)
            return
        job = Job.objects.only("state").get(pk=job_id)
        if not job.is_finished:
            raise InvalidTransition(
                f"It is {job.get_state_display()}; only a job that has ended can be removed. "
                "Cancel it first."
            )
        raise InvalidTransition(
            "Its dead letter is open. Requeue it, or mark it permanently failed, first."
        )


_CLOSED = (DeadLetterStatus.RECOVERED, DeadLetterStatus.PERMANENTLY_FAILED)


def _over(jobs: "QuerySet[Job]", before: datetime) -> "QuerySet[Job]":
    """Return those of the finished jobs that were over, dead letter included, before a time."""
    closed = Q(dead_letter__closed_at__lt=before) | Q(dead_letter__recovered_at__lt=before)
    return jobs.filter(
        Q(dead_letter__isnull=True) | (Q(dead_letter__status__in=_CLOSED) & closed),
        finished_at__lt=before,
        state__in=FINISHED,
    )


def _delete(jobs: "QuerySet[Job]", *, most: int | None = None) -> int:
    """Delete these jobs batch by batch, and with them what belongs to them.

    A batch is looked up without locks and deleted under them: a dead letter that was opened
    again meanwhile keeps its job, and so does a job that was requeued.
    """
    total = 0
    while most is None or total < most:
        size = _BATCH if most is None else min(_BATCH, most - total)
        ids = list(jobs.order_by("finished_at").values_list("pk", flat=True)[:size])
        if not ids:
            break
        with transaction.atomic():
            removed = _delete_ended(ids)
        total += removed
        if len(ids) < size or not removed:
            break
    return total


def _delete_ended(ids: list[str]) -> int:
    """Delete, in a transaction, those of the jobs that have ended; return how many."""
    # In the order in which a requeue locks: dead letters by key, then jobs by key.
    letters = list(DeadLetter.objects.select_for_update().filter(job_id__in=ids).order_by("pk"))
    open_ones = {letter.job_id for letter in letters if letter.status not in _CLOSED}
    locked = Job.objects.select_for_update().filter(pk__in=set(ids) - open_ones)
    gone = list(locked.filter(state__in=FINISHED).order_by("pk").values_list("pk", flat=True))
    Attempt.objects.filter(job_id__in=gone).delete()
    Effect.objects.filter(job_id__in=gone).delete()
    DeadLetter.objects.filter(job_id__in=gone, status__in=_CLOSED).delete()
    _, counts = Job.objects.filter(pk__in=gone).delete()
    return counts.get(Job._meta.label, 0)
