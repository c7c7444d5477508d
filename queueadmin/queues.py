"""Use cases on queues: pause, resume, limits; each audited, each safe when pressed twice."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q

from . import audit, events
from .clock import now
from .conf import settings
from .models import Queue
from .policies import Rate

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class Limits:
    """Effective limits of a queue and where each comes from ("settings", "console" or "")."""

    concurrency: int | None
    concurrency_from: str
    rate: Rate | None
    rate_from: str


def pause(queue: str, *, by: "User | None", reason: str, until: datetime | None = None) -> bool:
    """Stop new starts of the queue's jobs everywhere within a second; what runs goes on.

    Args:
        queue: name of the queue.
        by: who pauses it; None for a program.
        reason: why, shown beside the queue.
        until: when it goes on by itself; None means when somebody resumes it.

    Returns:
        False when it was paused already; nothing is changed then.

    Raises:
        NotPermitted: `by` lacks the permission `pause_queue`.
    """
    audit.require(by, "pause_queue")
    at = now()
    with transaction.atomic():
        Queue.objects.get_or_create(name=queue)
        running = Queue.objects.filter(Q(paused_at=None) | Q(paused_until__lte=at), name=queue)
        changed = running.update(
            paused_at=at, paused_until=until, paused_by=by, pause_reason=reason
        )
        if changed:
            audit.record(
                "pause",
                "queue",
                [queue],
                by=by,
                reason=reason,
                until=until.isoformat() if until else None,
            )
            transaction.on_commit(partial(events.of_queue, "paused", queue, reason=reason))
    return bool(changed)


def resume(queue: str, *, by: "User | None", reason: str = "") -> bool:
    """Let the queue's jobs start again; False when it was not paused.

    Raises:
        NotPermitted: `by` lacks the permission `pause_queue`.
    """
    audit.require(by, "pause_queue")
    with transaction.atomic():
        changed = Queue.objects.filter(name=queue, paused_at__isnull=False).update(
            paused_at=None, paused_until=None, paused_by=None, pause_reason=""
        )
        if changed:
            audit.record("resume", "queue", [queue], by=by, reason=reason)
            transaction.on_commit(partial(events.of_queue, "resumed", queue, reason=reason))
    return bool(changed)


def limit(
    queue: str,
    *,
    by: "User | None",
    concurrency: int | None,
    rate: Rate | None,
    reason: str = "",
) -> None:
    """Replace the policy's limits at run time; None goes back to the policy's.

    Raises:
        NotPermitted: `by` lacks the permission `limit_queue`.
        ValueError: `concurrency` is less than 1.
    """
    audit.require(by, "limit_queue")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency is 1 or more, not {concurrency}; to stop a queue, pause it.")
    with transaction.atomic():
        Queue.objects.update_or_create(
            name=queue,
            defaults={
                "concurrency": concurrency,
                "rate_limit": rate.limit if rate else None,
                "rate_window_ms": rate.window_ms if rate else None,
            },
        )
        audit.record(
            "limit",
            "queue",
            [queue],
            by=by,
            reason=reason,
            concurrency=concurrency,
            rate=str(rate) if rate else None,
        )


def limits(queue: str) -> Limits:
    """Return the limits that hold for the queue and where they come from."""
    return limits_of(Queue.objects.filter(name=queue).first() or Queue(name=queue))


def limits_of(queue: Queue) -> Limits:
    """Return the limits of a queue whose row has been read."""
    policy = settings.policy(queue.name)
    by_hand = Rate(queue.rate_limit, queue.rate_window_ms or 0) if queue.rate_limit else None
    concurrency = queue.concurrency or (policy.concurrency if policy else None)
    rate = by_hand or (policy.rate if policy else None)
    return Limits(
        concurrency=concurrency,
        concurrency_from=_origin(bool(queue.concurrency), concurrency),
        rate=rate,
        rate_from=_origin(by_hand is not None, rate),
    )


def _origin(is_by_hand: bool, value: object) -> str:
    if value is None:
        return ""
    return "console" if is_by_hand else "settings"
