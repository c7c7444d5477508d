"""The only writer of Job.state (stand-in until the engine lands)."""

from collections.abc import Iterable

from django.db.models import F

from .clock import now
from .models import Job
from .states import JobState


def requeue(job_ids: Iterable[str]) -> set[str]:
    """Move dead jobs to waiting with a new round of attempts; return the ids that changed.

    Call it inside a transaction.
    """
    wanted = sorted(job_ids)
    changed = set(
        Job.objects.select_for_update()
        .filter(pk__in=wanted, state=JobState.DEAD)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    at = now()
    Job.objects.filter(pk__in=changed, state=JobState.DEAD).update(
        state=JobState.WAITING,
        attempts=0,
        requeues=F("requeues") + 1,
        dispatch=F("dispatch") + 1,
        due_at=at,
        started_at=None,
        finished_at=None,
        in_broker=False,
    )
    return changed
