"""A recovery run over millions of jobs, some of which the broker has lost."""

import time
from collections.abc import Callable
from typing import Any

from .ledger import FULL, QUICK, fill
from .results import Row, row
from .stand import Stand


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Let the broker lose a fifth of what waits; recover; and again with nothing to do."""
    jobs, dead = QUICK if quick else FULL
    fill(jobs, dead)
    from queueadmin import ledger, recovery
    from queueadmin.models import Job
    from queueadmin.states import JobState

    waiting = Job.objects.filter(state=JobState.WAITING).order_by("pk")
    lost = 1_000 if quick else 10_000
    stand.broker.transport.push(ledger.parcels_of(waiting[lost:]))
    stand.broker.transport.settling_ms = 0
    stand.broker.transport.refilled()
    repaired, run = _timed(recovery.recover)
    idle = [_timed(recovery.recover)[0] for _ in range(3 if quick else 5)]
    return [
        row("queueadmin", f"s to repair {lost:,} of {jobs:,} jobs", [repaired]),
        row("queueadmin", "jobs found lost", [float(run.found["lost in the broker"])]),
        row("queueadmin", "s with nothing to repair", idle),
    ]


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = act()
    return time.perf_counter() - begun, result
