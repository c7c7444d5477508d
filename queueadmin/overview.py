"""What there is to do, queue by queue; read by every door."""

from dataclasses import dataclass
from datetime import datetime

from . import statistics
from .clock import now
from .models import Queue
from .states import JobState


@dataclass(frozen=True, slots=True)
class QueueOverview:
    """How a queue stands; counts end at `statistics.COUNT_LIMIT`."""

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
    """Return every queue that is configured, declared, was ever controlled, or has dead letters."""
    at = now()
    controls = {row.name: row for row in Queue.objects.all()}
    # A dead letter that waits belongs to a dead job, whose queue is among them.
    pairs = statistics.queues_of_jobs()
    names = statistics.queue_names(pairs)
    counts = statistics.counts(names, pairs=pairs)
    pending, since = statistics.pending(names), statistics.oldest(names)
    return [
        QueueOverview(
            queue=name,
            scheduled=counts[name].get(JobState.SCHEDULED, 0),
            waiting=counts[name].get(JobState.WAITING, 0),
            active=counts[name].get(JobState.ACTIVE, 0),
            retrying=counts[name].get(JobState.RETRYING, 0),
            pending=pending.get(name, 0),
            waiting_since=since.get(name),
            is_paused=(row := controls.get(name)) is not None and row.is_paused(at),
            pause_reason=row.pause_reason if row is not None and row.is_paused(at) else "",
        )
        for name in names
    ]
