"""Cancels the scheduled jobs of an order that have become pointless.

Nothing relies on it: each of those jobs looks at its row first and does nothing when it is
over. But a job that is cancelled does not wait in lists, and says what became of it.
"""

from queueadmin import jobs
from queueadmin.models import Job
from queueadmin.states import JobState

from .models import Order


def stop(order: Order, *actors: str, reason: str) -> None:
    """Cancel the order's scheduled jobs of these actors, in the caller's transaction.

    Only what is scheduled: one that runs at this moment is about to see for itself, and
    may be the very job that calls.
    """
    pointless = Job.objects.about(order).filter(actor__in=actors, state=JobState.SCHEDULED)
    if ids := list(pointless.values_list("pk", flat=True)):
        jobs.cancel(ids, by=None, reason=reason)
