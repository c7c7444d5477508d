"""Compares ledger and broker as a whole, repairs, and records what it did."""

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dramatiq import get_broker

from . import audit, dispatcher, leases, ledger
from .clock import now
from .models import Job, RecoveryRun
from .states import JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

_LEASE = timedelta(minutes=5)
_BATCH = 1000


def recover(*, by: "User | None" = None, dry_run: bool = False) -> RecoveryRun | None:
    """Run one recovery and return its record; None when another is under way.

    Args:
        by: who asked for it; None for the schedule.
        dry_run: only count what would be done.
    """
    holder = str(uuid4())
    if not leases.acquire("recovery", holder, _LEASE):
        return None
    run = RecoveryRun.objects.create(started_at=now())
    try:
        run.found = {
            "overdue": dispatcher.promote(_broker()) if not dry_run else _overdue(),
            "dead workers' jobs": 0 if dry_run else dispatcher.rescue(_broker()),
            "lost in the broker": _redispatch(dry_run=dry_run),
        }
        if by is not None:
            audit.record("recover", "recovery run", [run.pk], by=by, **run.found)
    except Exception as error:  # recorded for people, then raised for the job's own record
        run.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        run.finished_at = now()
        run.save()
        leases.release("recovery", holder)
    logger.info("Recovery run %d: %s", run.pk, run.found)
    return run


def _broker() -> Any:
    return get_broker()


def _overdue() -> int:
    return Job.objects.filter(
        state__in=(JobState.SCHEDULED, JobState.RETRYING), due_at__lt=now()
    ).count()


def _redispatch(*, dry_run: bool) -> int:
    """Dispatch again what waits or runs by the ledger and is unknown to the broker.

    All that waits is looked at, also what was confirmed once: a flushed server forgets.
    A job recorded between the look and the UPDATE is left alone by it, because outcomes
    are committed before messages leave the broker.
    """
    transport = _broker().transport
    total, last = 0, ""
    before = now() - dispatcher.UNCONFIRMED_AFTER
    while True:
        jobs = Job.objects.filter(
            state__in=(JobState.WAITING, JobState.ACTIVE), due_at__lt=before, pk__gt=last
        ).order_by("pk")
        parcels = ledger.parcels_of(jobs[:_BATCH])
        if not parcels:
            return total
        last = parcels[-1].job
        missing = transport.missing(parcels)
        if not dry_run:
            again = ledger.rescue([(parcel.job, parcel.dispatch) for parcel in missing])
            if _broker().push(again):
                ledger.confirm(again)
        total += len(missing)
