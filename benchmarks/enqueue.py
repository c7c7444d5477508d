"""How fast jobs are enqueued: one by one in a transaction, and many at once."""

import time
from typing import Any

from .results import Row, row
from .rivals import PAYLOAD, WithAdminMiddleware
from .rivals.environments import Procrastinate
from .stand import Stand

_SINGLY = "jobs / s, each in its transaction"
_MANY = "jobs / s by enqueue_many"


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Let the systems take turns; nobody works meanwhile."""
    # Many short rounds: a noisy second of the machine is to touch all alike.
    jobs, rounds = (300, 2) if quick else (500, 15)
    is_sqlite = "sqlite" in stand.servers["database"]
    admin = WithAdminMiddleware(stand, "sqlite" if is_sqlite else "postgresql")
    rivals = [admin] if is_sqlite else [admin, Procrastinate(stand)]
    rates: dict[tuple[str, str], list[float]] = {}
    try:
        for _ in range(rounds):
            rates.setdefault(("queueadmin", _SINGLY), []).append(jobs / _singly(stand, jobs))
            for rival in rivals:
                taken = rival.seconds_singly(jobs)
                rates.setdefault((rival.name, _SINGLY), []).append(jobs / taken)
            many = jobs * 10
            rates.setdefault(("queueadmin", _MANY), []).append(many / _many(stand, many))
    finally:
        for rival in rivals:
            rival.close()
    return [row(system, unit, found) for (system, unit), found in rates.items()]


def _singly(stand: Stand, jobs: int) -> float:
    from django.db import transaction

    begun = time.perf_counter()
    for _ in range(jobs):
        with transaction.atomic():
            stand.broker.enqueue(_message())
    return time.perf_counter() - begun


def _many(stand: Stand, jobs: int) -> float:
    begun = time.perf_counter()
    stand.broker.enqueue_many(_message() for _ in range(jobs))
    return time.perf_counter() - begun


def _message() -> Any:
    from dramatiq import Message

    return Message(
        queue_name="noop", actor_name="benchmark.noop", args=(PAYLOAD,), kwargs={}, options={}
    )
