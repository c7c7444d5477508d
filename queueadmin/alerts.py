"""Opens an alert when a condition finds trouble, closes it when that is over, tells of both.

Whoever looks, a worker's dispatcher or a watcher, takes a lease for it. That only saves
work: an alert is opened by the INSERT that a unique constraint lets pass and closed by one
conditional UPDATE, and its messages are made in the same transaction. So of two who find
the same, in whatever order they write, one tells of it.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import DatabaseError, InterfaceError, transaction

from . import alert_messages, audit, drift, leases
from .alert_messages import Event
from .clock import now
from .conditions import CONDITIONS, Condition, Reading
from .conf import settings
from .models import Alert
from .states import AlertKind

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

TARGET = "alert"
#: Role of whoever looks. It outlasts two looks, and is up for others soon after the last.
LEASE, _LEASE_FOR = "alerts", timedelta(seconds=25)
KEEP_CLOSED = timedelta(days=90)


class Lookout:
    """Asks the conditions that are due; one per process, as it knows what it saw before."""

    def __init__(self, conditions: Sequence[Condition] = (*CONDITIONS, drift.CONDITION)) -> None:
        self._conditions = conditions
        self._holder = str(uuid4())
        self._due: dict[Condition, float] = {}
        self._seen_since: dict[tuple[AlertKind, str], float] = {}

    def look(self) -> int:
        """Open and close alerts; return how many."""
        if not leases.acquire(LEASE, self._holder, _LEASE_FOR):
            # What was seen long ago says nothing of how long it has lasted.
            self._seen_since.clear()
            return 0
        kinds: set[AlertKind] = set()
        readings: list[Reading] = []
        for condition in self._conditions:
            if time.monotonic() < self._due.get(condition, 0.0):
                continue
            try:
                found = list(condition.find())
            except (DatabaseError, InterfaceError):
                raise
            except Exception:
                # A flaw of one condition must not silence the others, nor close its alerts.
                logger.exception("A condition of alerts failed: %s", condition.find)
                continue
            self._due[condition] = time.monotonic() + condition.every.total_seconds()
            kinds.update(condition.kinds)
            readings += found
        return self._apply(kinds, self._lasting(kinds, readings))

    def _lasting(self, kinds: set[AlertKind], readings: Iterable[Reading]) -> list[Reading]:
        """Return what may open alerts: of sudden troubles only those that have lasted."""
        at, lasting = time.monotonic(), []
        seen = {(one.kind, one.subject) for one in readings}
        for key in [key for key in self._seen_since if key[0] in kinds and key not in seen]:
            del self._seen_since[key]
        for one in readings:
            since = self._seen_since.setdefault((one.kind, one.subject), at)
            if one.is_sudden and at - since < settings.ALERT_OUTAGE_SECONDS:
                one = replace(one, opens=False)
            lasting.append(one)
        return lasting

    def _apply(self, kinds: set[AlertKind], readings: Sequence[Reading]) -> int:
        there = {
            (alert.kind, alert.subject): alert
            for alert in Alert.objects.filter(closed_at=None, kind__in=kinds)
        }
        found = {(one.kind.value, one.subject): one for one in readings}
        opening = [one for key, one in found.items() if one.opens and key not in there]
        closing = [alert for key, alert in there.items() if key not in found]
        for key, alert in there.items():
            if key in found and found[key].text != alert.text:
                Alert.objects.filter(pk=alert.pk, closed_at=None).update(text=found[key].text)
        if not opening and not closing:
            return 0
        with transaction.atomic():
            # Again: who has looked for too long leaves it to whoever looks now.
            if not leases.acquire(LEASE, self._holder, _LEASE_FOR):
                return 0
            events = [*map(_open, opening), *map(_close, closing)]
            won = [event for event in events if event is not None]
            alert_messages.tell(won)
        return len(won)


@cache
def _of_this_process() -> Lookout:
    return Lookout()


def tend(broker: object = None) -> int:
    """Open and close alerts; return how many. A duty of the dispatcher."""
    return _of_this_process().look()


def _open(reading: Reading, **fields: Any) -> Event | None:
    """Open an alert; None when there is one."""
    values = {"text": reading.text, "queue": reading.queue, "opened_at": now(), **fields}
    alert, is_new = Alert.objects.get_or_create(
        kind=reading.kind, subject=reading.subject, closed_at=None, defaults=values
    )
    if not is_new:
        return None
    logger.warning("Alert opened kind=%s subject=%r: %s", alert.kind, alert.subject, alert.text)
    return Event.of(alert)


def _close(alert: Alert) -> Event | None:
    """Close an alert; None when somebody else has."""
    alert.closed_at = now()
    if not Alert.objects.filter(pk=alert.pk, closed_at=None).update(closed_at=alert.closed_at):
        return None
    logger.info("Alert closed kind=%s subject=%r", alert.kind, alert.subject)
    return Event.of(alert)


def record(reading: Reading, **fields: Any) -> bool:
    """Open an alert that has been told of already; False when there is one."""
    return _open(reading, **fields) is not None


def acknowledge(alert: int, *, by: "User | None", reason: str = "") -> bool:
    """Say that somebody is at it; False when somebody was, or it is over.

    It stays open until its trouble is over.

    Raises:
        NotPermitted: `by` lacks the permission `acknowledge_alert`.
    """
    audit.require(by, "acknowledge_alert")
    with transaction.atomic():
        changed = Alert.objects.filter(pk=alert, closed_at=None, acknowledged_at=None).update(
            acknowledged_at=now(), acknowledged_by=by
        )
        if changed:
            audit.record("acknowledge", TARGET, [alert], by=by, reason=reason)
    return bool(changed)


def prune() -> int:
    """Delete alerts and messages that are over long since; return how many alerts."""
    before = now() - KEEP_CLOSED
    alert_messages.prune(before)
    deleted, _ = Alert.objects.filter(closed_at__lt=before).delete()
    return deleted
