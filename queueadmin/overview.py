"""What there is to do, queue by queue; read by every door."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min

from .clock import now
from .conf import settings
from .models import DeadLetter, Job, Queue
from .states import UNFINISHED, JobState


@dataclass(frozen=True, slots=True)
class QueueOverview:
    """How a queue stands."""

    queue: str
    scheduled: int
    waiting: int
    active: int
    retrying: int
    #: Dead letters that wait for a decision.
    pending: int
    #: Since when the job that has waited longest has been due.
    waiting_since: datetime | None
    is_paused: bool
    pause_reason: str


def queues() -> list[QueueOverview]:
    """Return every queue that is configured, was ever controlled, or has something to do.

    Finished jobs are not counted: there may be millions of them, and what is unfinished is
    found by an index.
    """
    at = now()
    counts: dict[tuple[str, str], int] = {}
    rows = Job.objects.filter(state__in=UNFINISHED).order_by().values_list("queue", "state")
    for queue, state, number in rows.annotate(number=Count("pk")):
        counts[queue, state] = number
    waiting = Job.objects.filter(state=JobState.WAITING).order_by().values_list("queue")
    oldest = dict(waiting.annotate(since=Min("due_at")))
    letters = DeadLetter.objects.pending().order_by().values_list("queue")
    pending = dict(letters.annotate(number=Count("pk")))
    controls = {row.name: row for row in Queue.objects.all()}
    names = {queue for queue, _ in counts} | {*pending, *controls, *settings.QUEUES}
    return [
        QueueOverview(
            queue=name,
            scheduled=counts.get((name, JobState.SCHEDULED), 0),
            waiting=counts.get((name, JobState.WAITING), 0),
            active=counts.get((name, JobState.ACTIVE), 0),
            retrying=counts.get((name, JobState.RETRYING), 0),
            pending=pending.get(name, 0),
            waiting_since=oldest.get(name),
            is_paused=(row := controls.get(name)) is not None and row.is_paused(at),
            pause_reason=row.pause_reason if row is not None and row.is_paused(at) else "",
        )
        for name in sorted(names)
    ]
