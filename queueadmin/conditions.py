"""What is trouble: a list of conditions, each of which says what it finds and nothing more.

A condition has two levels, so that an alert does not come and go with every job: it begins
at the setting's limit, and goes on until what is measured is well below it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from dramatiq import get_broker

from . import overview, recurring, statistics, workers
from .brokers.transport import BrokerUnavailable
from .clock import now
from .conf import settings
from .models import DeadLetter, FailureGroup, Queue
from .states import AlertKind, GroupStatus

# Beyond so many, oldest first, nobody reads them one by one.
_MOST_GROUPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One trouble that was found.

    Args:
        kind: what it is.
        text: what was found, in one sentence with its numbers.
        subject: what it is about, where there are several of its kind.
        queue: the queue that it is about.
        opens: False between the two levels: it keeps an alert open and opens none.
        is_sudden: it says nothing of how long it has lasted, so that is measured.
    """

    kind: AlertKind
    text: str
    subject: str = ""
    queue: str = ""
    opens: bool = True
    is_sudden: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One question, which kinds it settles, and how often it is asked."""

    kinds: tuple[AlertKind, ...]
    find: Callable[[], Iterable[Reading]]
    every: timedelta = timedelta(seconds=10)


def dead_letters() -> Iterator[Reading]:
    """Find more dead letters that wait for a decision than the limits allow."""
    pending = statistics.pending(statistics.queue_names())
    snoozed = DeadLetter.objects.snoozed().order_by().values_list("queue").annotate(Count("pk"))
    for queue, count in snoozed:
        # Counting stops somewhere, so less may be left of it than snoozed.
        pending[queue] = max(pending.get(queue, 0) - count, 0)
    total, limit = sum(pending.values()), settings.ALERT_DEAD_LETTERS
    if limit and total > limit // 2:
        yield Reading(
            kind=AlertKind.DEAD_LETTERS,
            text=ngettext(
                "%(count)d dead letter waits for a decision in all queues.",
                "%(count)d dead letters wait for a decision in all queues.",
                total,
            )
            % {"count": total},
            opens=total >= limit,
        )
    limit = settings.ALERT_QUEUE_DEAD_LETTERS
    for queue, count in pending.items():
        if limit and count > limit // 2:
            yield Reading(
                kind=AlertKind.DEAD_LETTERS,
                subject=queue,
                queue=queue,
                text=ngettext(
                    "%(count)d dead letter of %(queue)s waits for a decision.",
                    "%(count)d dead letters of %(queue)s wait for a decision.",
                    count,
                )
                % {"count": count, "queue": queue},
                opens=count >= limit,
            )


def regressed() -> Iterator[Reading]:
    """Find failure groups that failed again after somebody had resolved them."""
    rows = FailureGroup.objects.filter(status=GroupStatus.REGRESSED).order_by("regressed_at", "pk")
    for group in rows.only("queue", "actor", "error_class", "owner_id")[:_MOST_GROUPS]:
        yield Reading(
            kind=AlertKind.REGRESSED,
            subject=group.label,
            queue=group.queue,
            text=_("%(group)s is back: %(error)s in %(actor)s.")
            % {"group": group.label, "error": group.error_class, "actor": group.actor},
        )


def held_up() -> Iterator[Reading]:
    """Find queues whose jobs wait too long, for a worker, or for the end of a pause."""
    at, rows = now(), {row.name: row for row in Queue.objects.all()}
    fleet = [set(queues) for queues in workers.alive().values_list("queues", flat=True)]
    for seen in overview.queues():
        name = seen.queue
        row = rows.get(name) or Queue(name=name)
        if row.breaker_state != Queue.Breaker.CLOSED:
            yield Reading(
                kind=AlertKind.BREAKER,
                text=_("The breaker of %(queue)s is %(state)s: %(cause)s")
                % {
                    "queue": name,
                    "state": row.get_breaker_state_display(),
                    "cause": row.breaker_cause,
                },
                subject=name,
                queue=name,
            )
        elif seen.is_paused:
            yield from _paused(row, at)
        elif seen.waiting:
            yield from _stuck(seen, at)
            if fleet and not any(name in consumed for consumed in fleet):
                yield Reading(
                    kind=AlertKind.UNCONSUMED,
                    text=_("%(count)d jobs of %(queue)s wait and no worker consumes it.")
                    % {"count": seen.waiting, "queue": name},
                    subject=name,
                    queue=name,
                    is_sudden=True,
                )


def _paused(row: Queue, at: datetime) -> Iterator[Reading]:
    limit = timedelta(minutes=settings.ALERT_PAUSED_MINUTES)
    if limit and row.paused_at and at - row.paused_at >= limit:
        minutes = round((at - row.paused_at) / timedelta(minutes=1))
        yield Reading(
            kind=AlertKind.PAUSED,
            text=_("%(queue)s has been paused for %(minutes)d minutes: %(reason)s")
            % {"queue": row.name, "minutes": minutes, "reason": row.pause_reason},
            subject=row.name,
            queue=row.name,
        )


def _stuck(seen: overview.QueueOverview, at: datetime) -> Iterator[Reading]:
    limit = timedelta(minutes=settings.ALERT_WAITING_MINUTES)
    waited = at - seen.waiting_since if seen.waiting_since else timedelta()
    if limit and waited >= limit / 2:
        yield Reading(
            kind=AlertKind.STUCK,
            text=_(
                "The oldest of %(count)d waiting jobs of %(queue)s was due %(minutes)d minutes ago."
            )
            % {
                "count": seen.waiting,
                "queue": seen.queue,
                "minutes": round(waited / timedelta(minutes=1)),
            },
            opens=waited >= limit,
            subject=seen.queue,
            queue=seen.queue,
        )


def no_worker() -> Iterator[Reading]:
    """Find that no worker process is alive."""
    if not workers.alive().exists():
        yield Reading(
            kind=AlertKind.NO_WORKER,
            text=_("No worker process is alive; nothing runs."),
            is_sudden=True,
        )


def broker() -> Iterator[Reading]:
    """Find that the message server does not answer."""
    transport: Any = getattr(get_broker(), "transport", None)
    try:
        if transport is not None:
            transport.size("default")
    except BrokerUnavailable as error:
        yield Reading(
            kind=AlertKind.BROKER,
            text=_("The message server does not answer: %(error)s") % {"error": error},
            is_sudden=True,
        )


def scheduler() -> Iterator[Reading]:
    """Find that what recurs is overdue, or that no scheduler has ever run."""
    known = recurring.listed()
    late = [found for found in known if found.is_late]
    if late:
        yield Reading(
            kind=AlertKind.SCHEDULER,
            text=_("The scheduler is silent: %(name)s was due at %(when)s.")
            % {"name": late[0].name, "when": f"{late[0].next_at:%H:%M} UTC"},
        )
    elif known and all(found.next_at is None for found in known):
        yield Reading(
            kind=AlertKind.SCHEDULER,
            text=_("No scheduler has ever run; start one with “manage.py runscheduler”."),
            is_sudden=True,
        )


def nothing() -> Iterator[Reading]:
    """Find nothing: whoever gets as far as asking has a database."""
    return iter(())


CONDITIONS = (
    Condition((AlertKind.DEAD_LETTERS,), dead_letters),
    Condition((AlertKind.REGRESSED,), regressed),
    Condition(
        (AlertKind.STUCK, AlertKind.PAUSED, AlertKind.UNCONSUMED, AlertKind.BREAKER), held_up
    ),
    Condition((AlertKind.NO_WORKER,), no_worker),
    Condition((AlertKind.BROKER,), broker),
    Condition((AlertKind.SCHEDULER,), scheduler),
    Condition((AlertKind.DATABASE,), nothing),
)
