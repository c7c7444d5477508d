"""What staff do about a trouble that many dead letters share, and what is known about it.

Each verb checks its permission, is one conditional UPDATE, and writes its audit entry in
the same transaction. The ledger reopens what fails again; see `ledger.grouping`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import connection, transaction
from django.db.models import F, Min

from . import audit, mentions, operations
from .clock import now
from .ledger import sql
from .models import AuditEntry, DeadLetter, FailureGroup, GroupNote, RequeueOperation, Worker
from .operations import Progress
from .states import DeadLetterStatus, GroupStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from .brokers.base import LedgerBroker

TARGET = "failure group"
#: The windows of the matrix of cause and time.
WINDOWS = {
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "24h": timedelta(hours=24),
    "3d": timedelta(days=3),
    "7d": timedelta(days=7),
}
#: Failures of one group that are counted and looked at; beyond it "more than" is said.
COUNT_LIMIT = 10_000
#: Hours of a group's sparkline.
LINE_HOURS = 24
_EVIDENCE = 1_000
# Failures further apart than this belong to different outbreaks.
_QUIET = timedelta(minutes=15)
_TICKET = URLValidator(schemes=("http", "https"))


def resolve(
    group: int, *, by: "User | None", what_was_done: str, seen_deaths: int | None = None
) -> bool:
    """Say that the trouble is over; the next failure makes the group regressed.

    Args:
        group: primary key.
        by: who decides; None for a program.
        what_was_done: kept for whoever meets it again; required.
        seen_deaths: count of failures the person saw; when there are more by now, nothing
            is changed.

    Returns:
        False when it was resolved already, or has failed again since it was looked at.

    Raises:
        NotPermitted: `by` may not resolve groups.
        ValueError: nothing is said about what was done.
    """
    audit.require(by, "resolve_failuregroup")
    done = _clean(what_was_done)
    if not done:
        raise ValueError("Resolving a failure group needs a word on what was done.")
    rows = FailureGroup.objects.filter(pk=group).exclude(status=GroupStatus.RESOLVED)
    if seen_deaths is not None:
        rows = rows.filter(deaths=seen_deaths)
    with transaction.atomic():
        changed = rows.update(
            status=GroupStatus.RESOLVED,
            resolved_at=now(),
            resolved_by=by,
            resolution=done,
            **_AWAKE,
        )
        if changed:
            audit.record("resolve", TARGET, [group], by=by, reason=done)
    return bool(changed)


def reopen(group: int, *, by: "User | None", reason: str = "") -> bool:
    """Open a resolved or snoozed group again; False when it is open.

    Raises:
        NotPermitted: `by` may not resolve groups.
    """
    audit.require(by, "resolve_failuregroup")
    with transaction.atomic():
        changed = FailureGroup.objects.filter(
            pk=group, status__in=(GroupStatus.RESOLVED, GroupStatus.SNOOZED)
        ).update(status=GroupStatus.OPEN, **_AWAKE)
        if changed:
            audit.record("reopen", TARGET, [group], by=by, reason=_clean(reason))
    return bool(changed)


def snooze(
    group: int,
    *,
    by: "User | None",
    until: datetime | None = None,
    more_failures: int | None = None,
    until_release: bool = False,
    reason: str = "",
) -> bool:
    """Leave an open group alone until a date, so many more failures, or another release.

    Whatever comes first wakes it; without any of them it sleeps until somebody reopens it.

    Raises:
        NotPermitted: `by` may not triage groups.
        ValueError: the date has passed, or the number is below 1.
    """
    audit.require(by, "triage_failuregroup")
    if until is not None and until <= now():
        raise ValueError("The end of a snooze lies in the future.")
    if more_failures is not None and more_failures < 1:
        raise ValueError(f"A snooze ends after 1 or more failures, not {more_failures}.")
    with transaction.atomic():
        changed = FailureGroup.objects.filter(pk=group, status__in=FailureGroup.OPEN).update(
            status=GroupStatus.SNOOZED,
            snoozed_until=until,
            snoozed_deaths=F("deaths") + more_failures if more_failures is not None else None,
            snoozed_release=F("last_release") if until_release else "",
        )
        if changed:
            audit.record(
                "snooze",
                TARGET,
                [group],
                by=by,
                reason=_clean(reason),
                until=until.isoformat() if until else None,
                more_failures=more_failures,
                until_release=until_release,
            )
    return bool(changed)


def assign(group: int, *, to: "User | None", by: "User | None") -> bool:
    """Give the group to a person; None gives it back to nobody. False when unchanged.

    Raises:
        NotPermitted: `by` may not triage groups, or `to` may not see them.
    """
    audit.require(by, "triage_failuregroup")
    audit.require(to, "view_failuregroup")
    with transaction.atomic():
        rows = FailureGroup.objects.filter(pk=group)
        changed = (rows.exclude(owner=to) if to else rows.exclude(owner=None)).update(owner=to)
        if changed:
            name = to.get_username() if to is not None else ""
            audit.record("assign", TARGET, [group], by=by, to=name)
    return bool(changed)


def link_ticket(group: int, *, url: str, by: "User | None") -> bool:
    """Note where the trouble is discussed; an empty address removes it. False when unchanged.

    Raises:
        NotPermitted: `by` may not triage groups.
        ValueError: it is no http or https address.
    """
    audit.require(by, "triage_failuregroup")
    url = _clean(url)
    if url:
        try:
            _TICKET(url)
        except ValidationError as error:
            raise ValueError(f"A ticket is an http or https address, not {url!r}.") from error
    with transaction.atomic():
        changed = (
            FailureGroup.objects.filter(pk=group).exclude(ticket_url=url).update(ticket_url=url)
        )
        if changed:
            audit.record("link ticket", TARGET, [group], by=by, to=url)
    return bool(changed)


def annotate(group: int, *, text: str, by: "User | None") -> GroupNote:
    """Add a note to a group in any status.

    Raises:
        NotPermitted: `by` may not write notes on groups.
        ValueError: the text is empty.
        FailureGroup.DoesNotExist: there is no such group.
    """
    audit.require(by, "annotate_failuregroup")
    text = _clean(text)
    if not text:
        raise ValueError("A note needs a text.")
    with transaction.atomic():
        note = GroupNote.objects.create(
            group=FailureGroup.objects.only("pk").get(pk=group),
            author=by,
            author_name=by.get_username() if by is not None else audit.SYSTEM,
            text=text,
            written_at=now(),
        )
        people = mentions.announce(note, by=by)
        audit.record("annotate", TARGET, [group], by=by, **mentions.facts(note, people))
    return note


def wake(broker: "LedgerBroker | None" = None) -> int:
    """Open groups whose snooze is over; return how many. A duty of the dispatcher."""
    due = FailureGroup.objects.filter(snoozed_until__lte=now(), status=GroupStatus.SNOOZED)
    ids = list(due.order_by("pk").values_list("pk", flat=True)[:COUNT_LIMIT])
    if not ids:
        return 0
    with transaction.atomic():
        changed = due.filter(pk__in=ids).update(status=GroupStatus.OPEN, **_AWAKE)
        audit.record("wake", TARGET, ids, by=None)
    return changed


_AWAKE: dict[str, object] = {
    "snoozed_until": None,
    "snoozed_deaths": None,
    "snoozed_release": "",
}


def _clean(text: str) -> str:
    return text.replace("\0", "").strip()


# --- What is known ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of the matrix; `is_more` where it is only a lower bound."""

    count: int
    window: str
    is_more: bool = False


def matrix(groups: Sequence[FailureGroup]) -> dict[int, list[Cell]]:
    """Return, for each group, its dead letters by when they died, for every window.

    One query whatever the number of groups. Each group's newest failures are read from
    the index that has them in order, at most COUNT_LIMIT, so that a million of them cost
    no more than ten thousand.
    """
    at = now()
    counted = _deaths_since(groups, [at - length for length in WINDOWS.values()])
    return {
        pk: [
            Cell(min(count, COUNT_LIMIT), name, count > COUNT_LIMIT)
            for name, count in zip(WINDOWS, counts, strict=True)
        ]
        for pk, counts in counted.items()
    }


def line(group: FailureGroup) -> list[int]:
    """Return a group's dead letters of each of the last LINE_HOURS hours, oldest first.

    Of a storm of more than COUNT_LIMIT the newest are counted.
    """
    at = now()
    hours = [at - timedelta(hours=ago) for ago in range(1, LINE_HOURS + 1)]
    counts = _deaths_since([group], hours)[group.pk]
    return [more - fewer for fewer, more in pairwise([0, *counts])][::-1]


def _deaths_since(
    groups: Sequence[FailureGroup], moments: Sequence[datetime]
) -> dict[int, list[int]]:
    """Return how many of each group's newest failures came at or after each moment."""
    if not groups:
        return {}
    oldest = sql.timestamp(min(moments))
    counts = ", ".join("COUNT(CASE WHEN died_at >= %s THEN 1 END)" for _ in moments)
    part = (
        f"SELECT %s, {counts} FROM (SELECT died_at FROM queueadmin_deadletter "  # noqa: S608
        "WHERE fingerprint = %s AND died_at >= %s ORDER BY died_at DESC LIMIT %s) AS newest_{}"
    )
    parameters: list[Any] = []
    for group in groups:
        parameters += [
            group.pk,
            *map(sql.timestamp, moments),
            group.fingerprint,
            oldest,
            COUNT_LIMIT + 1,
        ]
    statement = " UNION ALL ".join(part.format(index) for index in range(len(groups)))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return {int(pk): list(counted) for pk, *counted in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Outbreak:
    """The latest failures of a group that belong together, and what they have in common."""

    count: int
    is_more: bool
    began_at: datetime
    ended_at: datetime
    #: Share of this trouble among all permanent failures of that time, in per cent.
    share: int
    #: What all of them have in common; empty where they differ.
    queue: str = ""
    release: str = ""
    host: str = ""
    #: How long the release had been running when it began, where that is known.
    after_release: timedelta | None = None

    @property
    def length(self) -> timedelta:
        """From the first failure to the last."""
        return self.ended_at - self.began_at


def outbreak(group: FailureGroup) -> Outbreak | None:
    """Return the group's latest outbreak, or None where no dead letter of it is left.

    It is computed from the newest thousand dead letters at most, in at most four queries.
    """
    letters = list(
        DeadLetter.objects.filter(fingerprint=group.fingerprint)
        .order_by("-died_at")
        .values_list("died_at", "queue", "release", "worker")[: _EVIDENCE + 1]
    )
    if not letters:
        return None
    recent = letters[:1]
    for letter in letters[1:_EVIDENCE]:
        if recent[-1][0] - letter[0] > _QUIET:
            break
        recent.append(letter)
    began_at, ended_at = recent[-1][0], recent[0][0]
    everything = DeadLetter.objects.filter(died_at__gte=began_at, died_at__lte=ended_at)
    total = everything.order_by()[: COUNT_LIMIT + 1].count()
    release = _common(row[2] for row in recent)
    host = _common(row[3].rpartition(":")[0] for row in recent)
    hosts = set(Worker.objects.values_list("host", flat=True)[:100]) if host else set()
    started = (
        Worker.objects.filter(release=release).aggregate(at=Min("started_at"))["at"]
        if release
        else None
    )
    return Outbreak(
        count=len(recent),
        is_more=len(recent) == _EVIDENCE < len(letters),
        began_at=began_at,
        ended_at=ended_at,
        share=round(100 * len(recent) / total) if total else 100,
        queue=_common(row[1] for row in recent),
        release=release,
        # Of a single host it is no news that it is the only one.
        host=host if hosts - {host} else "",
        after_release=began_at - started if started and started <= began_at else None,
    )


def _common(values: Iterable[str]) -> str:
    found = Counter(values)
    return next(iter(found)) if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class Past:
    """What was done about a group once, and whether it held."""

    at: datetime
    who: str
    text: str
    operation: RequeueOperation | None = None
    #: Of an operation: how its jobs ended.
    numbers: Progress | None = None
    #: How it went; None where that is not known.
    has_held: bool | None = None


def past(group: FailureGroup) -> list[Past]:
    """Return what was done about this trouble before, newest first."""
    resolutions = list(
        AuditEntry.objects.filter(
            target_type=TARGET, target_id=str(group.pk), verb="resolve"
        ).order_by("-at")[:10]
    )
    found = [
        Past(
            entry.at,
            entry.user_name,
            entry.reason,
            # Only the last one can still hold.
            has_held=group.status == GroupStatus.RESOLVED if index == 0 else False,
        )
        for index, entry in enumerate(resolutions)
    ]
    begun = list(group.operations.order_by("-id")[:10])
    numbers = operations.progress(begun)
    found += [
        Past(one.created_at, one.owner_name, one.reason, one, numbers[one.pk]) for one in begun
    ]
    return sorted(found, key=lambda past: past.at, reverse=True)


def pending(group: FailureGroup) -> "QuerySet[DeadLetter]":
    """Return the group's dead letters that wait for a decision, oldest first."""
    return DeadLetter.objects.filter(
        fingerprint=group.fingerprint, status=DeadLetterStatus.PENDING
    ).order_by("died_at", "pk")
