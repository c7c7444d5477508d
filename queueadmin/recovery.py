"""Compares ledger and broker as a whole, repairs, and records what it did."""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dramatiq import get_broker

from . import audit, dispatcher, leases
from .brokers.transport import ServerSettling
from .clock import now
from .conf import settings
from .exceptions import QueueadminError
from .models import Job, RecoveryRun
from .states import JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

_LEASE = timedelta(minutes=5)
# A server that goes on losing its memory is left to the next run.
_SETTLING_SECONDS = 15.0


class RecoveryOvertaken(QueueadminError):
    """A run took so long that another one has begun."""


def recover(*, by: "User | None" = None, dry_run: bool = False) -> RecoveryRun | None:
    """Run one recovery and return its record; None when another is under way.

    Args:
        by: who asked for it; None for the schedule.
        dry_run: only count what would be done.

    Raises:
        NotPermitted: `by` lacks the permission `run_recovery`.
        RecoveryOvertaken: a step outlasted the lease, and another run goes on with the rest.
    """
    audit.require(by, "run_recovery")
    holder = str(uuid4())
    if not leases.acquire("recovery", holder, _LEASE):
        return None
    run = RecoveryRun.objects.create(started_at=now())
    try:
        for category, step in _steps(dry_run=dry_run):
            # A long step must not let the next run begin beside the one after it.
            if not leases.acquire("recovery", holder, _LEASE):
                raise RecoveryOvertaken(f"Another run began before {category!r}; it goes on.")
            began = time.monotonic()
            try:
                run.found[category] = step()
            finally:
                run.durations_ms[category] = round((time.monotonic() - began) * 1000, 1)
        if by is not None:
            audit.record("recover", "recovery run", [run.pk], by=by, **run.found)
    except Exception as error:  # recorded for people, then raised for the job's own record
        run.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        run.finished_at = now()
        run.save()
        leases.release("recovery", holder)
    logger.info("Recovery run %d: %s in ms: %s", run.pk, run.found, run.durations_ms)
    return run


def in_order(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return facts by category in the order of the steps; PostgreSQL keeps JSON in its own."""
    names = [name for name, _ in _steps(dry_run=True)]
    return sorted(
        facts.items(), key=lambda fact: names.index(fact[0]) if fact[0] in names else len(names)
    )


def _steps(*, dry_run: bool) -> list[tuple[str, Callable[[], int]]]:
    """Return what is looked for, in this order, and how each is found or repaired."""
    broker = _broker()
    if dry_run:
        return [
            ("overdue", _overdue),
            ("dead workers' jobs", _in_dead_hands),
            ("lost in the broker", partial(_redispatch, dry_run=True)),
            ("finished, still in the broker", partial(dispatcher.close, broker, dry_run=True)),
        ]
    return [
        ("overdue", partial(dispatcher.promote, broker)),
        ("dead workers' jobs", partial(dispatcher.rescue, broker)),
        ("lost in the broker", partial(_redispatch, dry_run=False)),
        ("finished, still in the broker", partial(dispatcher.close, broker)),
    ]


def _broker() -> Any:
    return get_broker()


def _overdue() -> int:
    return Job.objects.filter(
        state__in=(JobState.SCHEDULED, JobState.RETRYING), due_at__lt=now()
    ).count()


def _in_dead_hands() -> int:
    transport = _broker().transport
    return sum(
        len(ids)
        for worker_id in transport.dead_workers(settings.HEARTBEAT_TIMEOUT_MS)
        for ids in transport.held_by(worker_id).values()
    )


def _redispatch(*, dry_run: bool) -> int:
    """Dispatch again what is lost, once a server that was just emptied has settled."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while True:
        try:
            return dispatcher.redispatch(_broker(), dry_run=dry_run)
        except ServerSettling:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # paces the looks
