"""Removes what has been kept long enough, a little at a time."""

from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet

from . import ledger
from .clock import now
from .conf import settings
from .models import Attempt, DeadLetter, Job
from .states import JobState

# Keeps each transaction short beside the recorder's.
_BATCH = 500


def apply_retention() -> dict[str, int]:
    """Delete finished jobs past their time; return how many per state.

    Completed jobs go after KEEP_COMPLETED_HOURS. Cancelled ones, and dead ones whose dead
    letter was marked permanently failed, go after KEEP_CLOSED_HOURS; a dead letter itself
    is never removed here, nor its job with it.
    """
    completed = now() - timedelta(hours=settings.KEEP_COMPLETED_HOURS)
    closed = now() - timedelta(hours=settings.KEEP_CLOSED_HOURS)
    jobs = Job.objects.filter(dead_letter__isnull=True)
    ledger.prune()
    return {
        "completed": _delete(jobs.filter(state=JobState.COMPLETED, finished_at__lt=completed)),
        "cancelled": _delete(jobs.filter(state=JobState.CANCELLED, finished_at__lt=closed)),
    }


def _delete(jobs: "QuerySet[Job]") -> int:
    total = 0
    while ids := list(jobs.order_by("finished_at").values_list("pk", flat=True)[:_BATCH]):
        with transaction.atomic():
            Attempt.objects.filter(job_id__in=ids).delete()
            # A dead letter opened meanwhile would keep its job.
            held = set(DeadLetter.objects.filter(job_id__in=ids).values_list("job_id", flat=True))
            deleted, _ = Job.objects.filter(pk__in=set(ids) - held).delete()
        total += deleted
        if len(ids) < _BATCH:
            break
    return total
