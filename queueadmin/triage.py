"""When a dead letter is to be settled, and when it is to be left alone.

Verbs as in `deadletters`, whose machinery they use: permission, one locked batch at a time,
audit in the transaction of the act, and a result that says what was skipped and why.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery

from . import audit, workers
from .clock import now
from .deadletters import AWAKE, TARGET, BulkResult, Skip, change, clean, in_batches
from .models import DeadLetter, FailureGroup

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from .brokers.base import LedgerBroker

PERMISSION = "assign_deadletter"
#: Snoozes that one turn of the duty ends; the next one takes the rest.
BATCH = 1_000
_TICKET = URLValidator(schemes=("http", "https"))


def set_due(ids: Iterable[int], *, at: datetime | None, by: "User | None") -> BulkResult:
    """Say when open dead letters are to be settled; None takes the date away.

    Raises:
        NotPermitted: `by` may not triage.
    """
    audit.require(by, PERMISSION)

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows if row.due_at != at]
        change(changed, "set_due", due_at=at)
        audit.record("set_due", TARGET, changed, by=by, to=at.isoformat() if at else None)
        return changed, Skip.UNCHANGED

    return in_batches(ids, "set_due", act)


def snooze(
    ids: Iterable[int],
    *,
    by: "User | None",
    until: datetime | None = None,
    more_failures: int | None = None,
    until_release: bool = False,
    reason: str = "",
) -> BulkResult:
    """Leave pending dead letters alone; what comes first wakes them.

    Args:
        ids: primary keys.
        by: who asks; None for a program.
        until: a date.
        more_failures: so many more failures of their groups.
        until_release: workers run another release than the one each failed in.
        reason: why, in that person's words.

    Without any of these they sleep until somebody wakes them. Who sleeps already is snoozed
    anew.

    Raises:
        NotPermitted: `by` may not triage.
        ValueError: the date has passed, or the number is below 1.
    """
    audit.require(by, PERMISSION)
    at = now()
    if until is not None and until <= at:
        raise ValueError("The end of a snooze lies in the future.")
    if more_failures is not None and more_failures < 1:
        raise ValueError(f"A snooze ends after 1 or more failures, not {more_failures}.")
    group = FailureGroup.objects.filter(fingerprint=OuterRef("fingerprint"))

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows if row.release or not until_release]
        change(
            changed,
            "snooze",
            snoozed_at=at,
            snoozed_until=until,
            snoozed_deaths=Subquery(group.values("deaths")[:1]) + more_failures
            if more_failures is not None
            else None,
            snoozed_release=F("release") if until_release else "",
        )
        audit.record(
            "snooze",
            TARGET,
            changed,
            by=by,
            reason=clean(reason),
            until=until.isoformat() if until else None,
            more_failures=more_failures,
            until_release=until_release,
        )
        return changed, Skip.NO_RELEASE

    return in_batches(ids, "snooze", act)


def wake(ids: Iterable[int], *, by: "User | None", reason: str = "") -> BulkResult:
    """End the snooze of dead letters.

    Raises:
        NotPermitted: `by` may not triage.
    """
    audit.require(by, PERMISSION)

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows if row.snoozed_at is not None]
        change(changed, "wake", **AWAKE)
        audit.record("wake", TARGET, changed, by=by, reason=clean(reason))
        return changed, Skip.UNCHANGED

    return in_batches(ids, "wake", act)


def link_ticket(ids: Iterable[int], *, url: str, by: "User | None") -> BulkResult:
    """Note where dead letters are discussed; an empty address removes it.

    Raises:
        NotPermitted: `by` may not triage.
        ValueError: it is no http or https address.
    """
    audit.require(by, PERMISSION)
    url = clean(url)
    if url:
        try:
            _TICKET(url)
        except ValidationError as error:
            raise ValueError(f"A ticket is an http or https address, not {url!r}.") from error

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows if row.ticket_url != url]
        change(changed, "link_ticket", ticket_url=url)
        audit.record("link ticket", TARGET, changed, by=by, to=url)
        return changed, Skip.UNCHANGED

    return in_batches(ids, "link_ticket", act)


def wake_due(broker: "LedgerBroker | None" = None) -> int:
    """End the snoozes that are over; return how many. A duty of the dispatcher.

    Another release has come as soon as a living worker says that it runs one. What a person
    or recorder holds is left for the next turn.
    """
    is_worse = FailureGroup.objects.filter(
        fingerprint=OuterRef("fingerprint"), deaths__gte=OuterRef("snoozed_deaths")
    )
    snoozed = DeadLetter.objects.snoozed().order_by("pk")
    over = snoozed.filter(Q(snoozed_until__lte=now()) | Exists(is_worse) | _is_outdated())
    with transaction.atomic():
        rows = over.select_for_update(skip_locked=True, no_key=True)
        ids = list(rows.values_list("pk", flat=True)[:BATCH])
        if ids:
            DeadLetter.objects.filter(pk__in=ids).update(**AWAKE)
            audit.record("wake", TARGET, ids, by=None)
    return len(ids)


def _is_outdated() -> Q:
    """Return the condition that some worker runs another release than the snoozed one."""
    running = set(workers.alive().exclude(release="").values_list("release", flat=True)[:100])
    if not running:
        return Q(pk__in=())
    waits = ~Q(snoozed_release="")
    return waits if len(running) > 1 else waits & ~Q(snoozed_release__in=running)
