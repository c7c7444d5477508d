"""Keeps this process's row in the registry of workers, and does what staff want of it.

The registry is for people and for fleet-wide figures. Whether a process is alive is
decided by the broker's heartbeats, which go on while the database is away.
"""

import logging
import platform
import resource
import sys
import time
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from django.db import transaction

from . import clock, meters
from .conf import settings
from .models import RetiredCounters, Worker

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)

#: How often a process renews its row, in seconds.
BEAT_SECONDS = 2.0
# A row this old belongs to a process that ended without saying so.
_FORGET_AFTER = timedelta(days=1)
_PACKAGES = ("django", "dramatiq", "redis")


class Registration:
    """This process's row.

    Args:
        broker: the broker whose work it is.
        threads: how many threads run jobs.
        queues: what it consumes; empty means every declared queue.
    """

    def __init__(self, broker: "LedgerBroker", *, threads: int, queues: set[str] | None) -> None:
        self._broker = broker
        self._queues = queues
        self._beat_at = 0.0
        at = clock.now()
        host, pid, _ = broker.transport.worker_id.rsplit(":", 2)
        self._row = Worker(
            id=broker.transport.worker_id,
            host=host,
            pid=int(pid),
            started_at=at,
            seen_at=at,
            threads=threads,
            release=settings.RELEASE,
            versions={"python": platform.python_version()}
            | {package: version(package) for package in _PACKAGES},
        )

    def beat(self) -> None:
        """Renew the row when it is time, and read what staff want.

        Raises:
            django.db.Error: the row could not be written; the next beat tries again.
        """
        now = time.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_SECONDS
        row = self._row
        row.seen_at = clock.now()
        row.queues = sorted(self._queues or self._broker.queues)
        row.memory_bytes = _memory()
        recorder = self._broker.require_recorder()
        row.recorded = recorder.recorded
        row.running = [
            {
                "job": run.job,
                "queue": run.queue,
                "actor": run.actor,
                "attempt": run.attempt,
                "started_at": run.started_at.isoformat(),
            }
            for run in list(recorder.running.values())
        ]
        row.tallies = self._broker.tallies.summary()
        row.counters = self._broker.meters.counts()
        # What staff write is not among the fields that the process writes.
        mine = ["seen_at", "queues", "memory_bytes", "recorded", "running", "tallies", "counters"]
        Worker.objects.bulk_create(
            [row], update_conflicts=True, update_fields=mine, unique_fields=["id"]
        )
        self._obey(Worker.objects.values_list("wish", flat=True).get(id=row.id))

    def _obey(self, wish: str) -> None:
        broker = self._broker
        must_be_quiet = wish != Worker.Wish.RUN
        if broker.is_quiet != must_be_quiet:
            logger.info("Worker %s is %s.", self._row, "quiet" if must_be_quiet else "at work")
            broker.is_quiet = must_be_quiet
            for consumer in list(broker.transport_consumers):
                consumer.wake.set()
        if wish == Worker.Wish.STOP and broker.request_stop is not None:
            broker.request_stop()

    def leave(self) -> None:
        """Remove the row: the process ends as it should."""
        _retire(self._row.id, self._broker.meters.counts())


def tidy(broker: "LedgerBroker") -> int:
    """Remove rows of processes that are long gone; return how many."""
    gone = Worker.objects.filter(seen_at__lt=clock.now() - _FORGET_AFTER).order_by("id")
    return sum(_retire(worker, counts) for worker, counts in gone.values_list("id", "counters"))


def _retire(worker: str, counts: meters.Counts) -> bool:
    """Remove a process's row and keep what it counted; False when somebody else has.

    In one transaction, and only by whoever deleted the row: nothing is counted twice or
    lost. The row of all counts is locked first, so that two who do this wait in line.
    """
    with transaction.atomic():
        RetiredCounters.objects.get_or_create(pk=RetiredCounters.THE_ONE)
        total = RetiredCounters.objects.select_for_update().get(pk=RetiredCounters.THE_ONE)
        deleted, _ = Worker.objects.filter(id=worker).delete()
        if deleted:
            total.counters = meters.add(total.counters, counts)
            total.save(update_fields=["counters"])
    return bool(deleted)


def _memory() -> int:
    """Return this process's resident memory in bytes; its peak where only that is known."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) * (1 if sys.platform == "darwin" else 1024)
