"""Circuit breakers: a queue whose provider is out of order pauses itself, and tries again.

A breaker is closed while all is well. It opens when enough of the recent attempts of the
fleet failed for one and the same cause; no job starts then, so that a backlog keeps its
attempts and its jobs do not become dead letters. After a while it lets one job through.
When that one is answered, also by a refusal of that very job, the breaker closes;
otherwise it opens again.

The processes count (`queueadmin.tallies`), the dispatcher's leader decides here, and every
process reads the decision with the other controls of the queue. Each change is one
conditional UPDATE on the stage it was decided in, so two leaders, or a leader and a
member of staff, cannot both make it.
"""

import logging
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from . import audit
from .clock import now
from .conf import settings
from .models import Queue, Worker
from .policies import Breaker

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)

# Counts of processes that have not been seen for longer are out of date.
_CURRENT = timedelta(seconds=10)


def tend(broker: "LedgerBroker | None" = None) -> int:
    """Open, probe and close breakers as their queues need it; return how many changed.

    A duty of the dispatcher.
    """
    guarded = {name: policy.breaker for name, policy in settings.QUEUES.items() if policy.breaker}
    if not guarded:
        return 0
    rows = {row.name: row for row in Queue.objects.filter(name__in=guarded)}
    tallies = list(
        Worker.objects.filter(seen_at__gt=now() - _CURRENT).values_list("tallies", flat=True)
    )
    changed = 0
    for name, breaker in guarded.items():
        row = rows.get(name) or Queue(name=name)
        attempts, causes, texts = _add_up(name, row.breaker_stage, tallies)
        changed += _decide(row, breaker, attempts, causes, texts)
    return changed


def _add_up(
    queue: str, stage: str, tallies: list[dict[str, dict[str, object]]]
) -> tuple[int, Counter[str], dict[str, str]]:
    attempts, causes, texts = 0, Counter[str](), dict[str, str]()
    for tally in tallies:
        found: dict[str, object] = tally.get(queue, {})
        if found.get("stage") != stage:
            continue
        attempts += int(str(found["attempts"]))
        for key, cause in dict(found["causes"]).items():  # type: ignore[call-overload]
            causes[key] += cause["count"]
            texts[key] = cause["text"]
    return attempts, causes, texts


def _decide(
    row: Queue, breaker: Breaker, attempts: int, causes: Counter[str], texts: dict[str, str]
) -> bool:
    failures = sum(causes.values())
    if row.breaker_state == Queue.Breaker.OPEN:
        if row.breaker_changed_at and now() - row.breaker_changed_at >= timedelta(
            seconds=breaker.probe_every
        ):
            return _change(row, Queue.Breaker.PROBING, row.breaker_cause)
    elif row.breaker_state == Queue.Breaker.PROBING:
        if attempts > failures:
            return _change(row, Queue.Breaker.CLOSED, "")
        if failures:
            return _change(row, Queue.Breaker.OPEN, texts[next(iter(causes))])
    elif causes:
        ((key, most),) = causes.most_common(1)
        if attempts >= breaker.minimum and most >= breaker.share * attempts:
            share = f"{most} of {attempts} attempts: {texts[key]}"
            return _change(row, Queue.Breaker.OPEN, share)
    return False


def _change(row: Queue, state: Queue.Breaker, cause: str) -> bool:
    with transaction.atomic():
        Queue.objects.get_or_create(name=row.name)
        changed = Queue.objects.filter(
            name=row.name,
            breaker_state=row.breaker_state,
            breaker_changed_at=row.breaker_changed_at,
        ).update(breaker_state=state, breaker_changed_at=now(), breaker_cause=cause[:1000])
        if changed and state != Queue.Breaker.PROBING:
            verb = "open breaker" if state == Queue.Breaker.OPEN else "close breaker"
            audit.record(verb, "queue", [row.name], by=None, reason=cause[:1000])
    if changed:
        facts = {"event": f"breaker {state.label}", "queue": row.name, "cause": cause}
        logger.warning("%(event)s queue=%(queue)s cause=%(cause)r", facts, extra=facts)
    return bool(changed)


def close(queue: str, *, by: "User | None", reason: str = "") -> bool:
    """Close a queue's breaker by hand; False when it was closed already.

    Raises:
        NotPermitted: `by` lacks the permission `pause_queue`.
    """
    audit.require(by, "pause_queue")
    with transaction.atomic():
        changed = (
            Queue.objects.filter(name=queue)
            .exclude(breaker_state=Queue.Breaker.CLOSED)
            .update(breaker_state=Queue.Breaker.CLOSED, breaker_changed_at=now(), breaker_cause="")
        )
        if changed:
            audit.record("close breaker", "queue", [queue], by=by, reason=reason)
    return bool(changed)
