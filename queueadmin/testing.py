"""Helpers for the tests of projects that use queueadmin."""

from collections import defaultdict
from queue import PriorityQueue
from typing import Any

import dramatiq
from django.db import transaction
from dramatiq.broker import MessageProxy
from dramatiq.message import Message
from dramatiq.worker import WorkerThread

from . import clock, ledger, payloads
from .consumer import Delivery
from .models import Job
from .states import JobState


class _Collector:
    """Stands where Dramatiq's worker expects its consumers; keeps the finished delivery."""

    def __init__(self) -> None:
        self.finished: list[Delivery] = []

    def post_process_message(self, message: MessageProxy) -> None:
        self.finished.append(message)  # type: ignore[arg-type]


def run_jobs(*, limit: int = 10_000) -> int:
    """Run every due job in this thread until none is left; return how many runs that took.

    It works inside `TestCase` too, where nothing is ever committed: jobs are taken from
    the ledger, pass the same middleware as in a worker, and their endings are recorded as
    by a worker. What is due later stays; move the clock and call again.

    Args:
        limit: runs after which something must be wrong.

    Raises:
        RuntimeError: the limit is reached, most likely by jobs that enqueue each other.
    """
    broker: Any = dramatiq.get_broker()
    collector = _Collector()
    thread = WorkerThread(
        broker=broker,
        consumers=defaultdict(lambda: collector),  # type: ignore[arg-type,return-value]
        work_queue=PriorityQueue(),
        worker_timeout=1,
    )
    runs = 0
    while True:
        ledger.promote_due(clock.now(), limit)
        with transaction.atomic():
            # No worker holds anything here, so a cancel is certain at once.
            ledger.cancel_withdrawn(ledger.cancelling(limit))
        waiting = Job.objects.filter(state=JobState.WAITING).order_by("priority", "due_at", "pk")
        parcels = ledger.parcels_of(waiting[:limit])
        if not parcels:
            return runs
        for parcel in parcels:
            if runs >= limit:
                raise RuntimeError(f"Still busy after {limit} runs; do jobs enqueue each other?")
            runs += 1
            delivery = Delivery(
                payloads.open_message(Message.decode(parcel.data)),
                parcel_id=parcel.id,
                dispatch=parcel.dispatch,
            )
            thread.work_queue.put(delivery)  # type: ignore[arg-type]
            thread.work_queue.get()
            thread.process_message(delivery)
            ledger.commit([collector.finished.pop().ending])
