"""What staff do with permanent failures: one use case per verb, for every door.

Each verb checks the permission itself, touches at most `BULK_LIMIT` dead letters, and
writes its audit entries in the transaction of the act. Of two people who press at once
one wins; the other's result says what was skipped and why.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Count, Q, TextChoices
from django.utils.translation import gettext_lazy as _

from . import audit, ledger, mentions, outbox, runbooks
from .clock import now
from .conf import settings
from .exceptions import InvalidTransition, NotPermitted
from .models import DeadLetter, Job, Note
from .models.dead_letter import Urgency
from .resolver import get_resolver
from .states import DeadLetterStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TARGET = "dead letter"
BATCH = 500  # one transaction each; keeps every lock short
#: The largest key; SQLite raises on more.
_LARGEST = 2**63 - 1

#: In which status a dead letter may be subject to each verb.
ELIGIBLE: dict[str, tuple[DeadLetterStatus, ...]] = {
    "requeue": (DeadLetterStatus.PENDING,),
    "close": (DeadLetterStatus.PENDING,),
    "assign": (DeadLetterStatus.PENDING, DeadLetterStatus.REQUEUED),
    "set_urgency": (DeadLetterStatus.PENDING, DeadLetterStatus.REQUEUED),
    "set_due": (DeadLetterStatus.PENDING, DeadLetterStatus.REQUEUED),
    "snooze": (DeadLetterStatus.PENDING,),
    "wake": (DeadLetterStatus.PENDING,),
    "link_ticket": tuple(DeadLetterStatus),
}

#: Fields of one that nobody has snoozed.
AWAKE: dict[str, object] = {
    "snoozed_at": None,
    "snoozed_until": None,
    "snoozed_deaths": None,
    "snoozed_release": "",
}


class Skip(TextChoices):
    """Why a verb left a dead letter as it was."""

    REQUEUED = "already requeued", _("already requeued")
    RECOVERED = "already recovered", _("already recovered")
    CLOSED = "already marked permanently failed", _("already marked permanently failed")
    GONE = "no longer there", _("no longer there")
    UNMOVABLE = "job cannot run again", _("job cannot run again")
    KEY_HELD = "unique key held by another job", _("unique key held by another job")
    ERASED = "its payload was erased", _("its payload was erased")
    UNSAFE = "not safe to repeat", _("not safe to repeat; requeue it by itself and confirm")
    OTHER_VALUE = "has another value", _("its argument has another value")
    NOT_EDITABLE = "cannot be edited", _("this argument of it cannot be edited")
    REFUSED = "new value refused", _("its actor does not take the new value")
    NO_RELEASE = "no release known", _("it is not known in which release it failed")
    UNCHANGED = "nothing to change", _("nothing to change")
    OVER_LIMIT = "over the limit of one action", _("over the limit of one action")


SKIP_BY_STATUS = {
    DeadLetterStatus.REQUEUED: Skip.REQUEUED,
    DeadLetterStatus.RECOVERED: Skip.RECOVERED,
    DeadLetterStatus.PERMANENTLY_FAILED: Skip.CLOSED,
}


@dataclass(frozen=True, slots=True)
class BulkResult:
    """How many dead letters were asked for, done, and skipped for which reason."""

    requested: int
    done: int
    skipped: dict[str, int] = field(default_factory=dict)
    #: Dead letters that were skipped because another job holds their job's unique key.
    held_by: dict[int, str] = field(default_factory=dict)


def requeue(
    ids: Iterable[int], *, by: "User | None", reason: str = "", confirmed: str = ""
) -> BulkResult:
    """Give the jobs of pending dead letters a new round of attempts.

    A job the ledger cannot move is skipped and its dead letter stays pending; so is one
    whose unique key another job holds by now, which `held_by` names, and one whose actor
    says that it is not safe to repeat, unless it is requeued by itself and confirmed.

    Args:
        ids: primary keys of the dead letters.
        by: who asks; None for a program.
        reason: why, in that person's words.
        confirmed: name of the actor, as a person typed it who knows what a repeat does.

    Raises:
        NotPermitted: `by` may not requeue.
    """
    _require(by, "requeue_deadletter")
    ids = distinct(ids)
    unsafe = runbooks.unsafe_actors() - ({confirmed} if len(ids) == 1 else set())
    held_by: dict[int, str] = {}
    erased: list[str] = []
    refused: list[int] = []

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        refused.extend(row.pk for row in rows if row.actor in unsafe)
        rows = [row for row in rows if row.actor not in unsafe]
        moved, held = ledger.requeue([row.job_id for row in rows])
        held_by.update({row.pk: held[row.job_id] for row in rows if row.job_id in held})
        unmoved = {row.job_id for row in rows} - moved
        erased.extend(
            Job.objects.filter(pk__in=unmoved, erased_at__isnull=False).values_list("pk", flat=True)
        )
        outbox.push_jobs(moved)
        changed = [row.pk for row in rows if row.job_id in moved]
        change(
            changed,
            "requeue",
            status=DeadLetterStatus.REQUEUED,
            requeued_at=now(),
            requeued_by=by,
            **AWAKE,
        )
        audit.record("requeue", TARGET, changed, by=by, reason=clean(reason))
        return changed, Skip.UNMOVABLE

    result = in_batches(ids, "requeue", act)
    if not held_by and not erased and not refused:
        return result
    skipped = Counter(result.skipped)
    skipped[Skip.UNMOVABLE.value] -= len(held_by) + len(erased) + len(refused)
    skipped[Skip.UNSAFE.value] += len(refused)
    skipped[Skip.ERASED.value] += len(erased)
    skipped[Skip.KEY_HELD.value] += len(held_by)
    return replace(result, skipped={why: n for why, n in skipped.items() if n}, held_by=held_by)


def close(ids: Iterable[int], *, by: "User | None", reason: str) -> BulkResult:
    """Mark pending dead letters permanently failed: their jobs will not run again.

    Args:
        ids: primary keys of the dead letters.
        by: who decides; None for a program.
        reason: why; required.

    Raises:
        NotPermitted: `by` may not close dead letters.
        ValueError: the reason is empty.
    """
    _require(by, "close_deadletter")
    reason = clean(reason)
    if not reason:
        raise ValueError("Marking dead letters permanently failed needs a reason.")

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows]
        change(
            changed,
            "close",
            status=DeadLetterStatus.PERMANENTLY_FAILED,
            closed_at=now(),
            closed_by=by,
            closing_reason=reason,
            **AWAKE,
        )
        audit.record("close", TARGET, changed, by=by, reason=reason)
        return changed, Skip.UNCHANGED

    return in_batches(ids, "close", act)


def assign(ids: Iterable[int], *, to: "User | None", by: "User | None") -> BulkResult:
    """Give open dead letters to a person; `to=None` gives them back to nobody.

    Raises:
        NotPermitted: `by` may not assign, or `to` may not see dead letters.
    """
    _require(by, "assign_deadletter")
    if to is not None:
        _require(to, "view_deadletter")

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        owner = to.pk if to is not None else None
        changed = [row.pk for row in rows if row.assignee_id != owner]
        change(changed, "assign", assignee=to)
        name = to.get_username() if to is not None else ""
        audit.record("assign", TARGET, changed, by=by, to=name)
        return changed, Skip.UNCHANGED

    return in_batches(ids, "assign", act)


def set_urgency(ids: Iterable[int], *, urgency: int, by: "User | None") -> BulkResult:
    """Say how soon staff should look at open dead letters.

    Raises:
        NotPermitted: `by` may not triage.
        ValueError: `urgency` is none of `Urgency`.
    """
    _require(by, "assign_deadletter")
    wanted = Urgency(urgency)

    def act(rows: list[DeadLetter]) -> tuple[list[int], Skip]:
        changed = [row.pk for row in rows if row.urgency != wanted]
        change(changed, "set_urgency", urgency=wanted)
        audit.record("set_urgency", TARGET, changed, by=by, to=wanted.name.lower())
        return changed, Skip.UNCHANGED

    return in_batches(ids, "set_urgency", act)


def annotate(dead_letter_id: int, *, text: str, by: "User | None") -> Note:
    """Add a note to a dead letter in any status.

    Raises:
        NotPermitted: `by` may not write notes.
        ValueError: the text is empty.
        DeadLetter.DoesNotExist: there is no such dead letter.
    """
    _require(by, "annotate_deadletter")
    text = clean(text)
    if not text:
        raise ValueError("A note needs a text.")
    with transaction.atomic():
        note = Note.objects.create(
            dead_letter=DeadLetter.objects.only("pk").get(pk=dead_letter_id),
            author=by,
            author_name=by.get_username() if by is not None else audit.SYSTEM,
            text=text,
            written_at=now(),
        )
        people = mentions.announce(note, by=by)
        audit.record("annotate", TARGET, [dead_letter_id], by=by, **mentions.facts(note, people))
    return note


def preview(ids: Iterable[int], verb: str) -> BulkResult:
    """Return what `verb` would do to these dead letters now; change nothing.

    Only statuses and actors are looked at: a job that cannot move shows in the real result.
    One by itself counts as done, because it may be confirmed.
    """
    wanted, skipped = _bounded(ids)
    unsafe = runbooks.unsafe_actors() if verb == "requeue" and len(wanted) > 1 else frozenset()
    counts = (
        DeadLetter.objects.filter(pk__in=wanted)
        .order_by()
        .annotate(is_unsafe=Q(actor__in=unsafe))
        .values_list("status", "is_unsafe")
        .annotate(number=Count("pk"))
    )
    done = 0
    for status, is_unsafe, number in counts:
        if status in ELIGIBLE[verb] and is_unsafe:
            skipped[Skip.UNSAFE.value] += number
        elif status in ELIGIBLE[verb]:
            done += number
        else:
            skipped[SKIP_BY_STATUS[DeadLetterStatus(status)].value] += number
    requested = len(wanted) + skipped[Skip.OVER_LIMIT.value]
    skipped[Skip.GONE.value] = requested - done - skipped.total()
    return BulkResult(requested, done, {why: n for why, n in skipped.items() if n})


def _require(user: "User | None", verb: str) -> None:
    """Raise NotPermitted unless a program, or a user who may do `verb`, asks."""
    if user is not None and not get_resolver().may(user, verb):
        raise NotPermitted(f"{user.get_username()} lacks the permission queueadmin.{verb}.")


def clean(text: str) -> str:
    """Drop outer blanks and NUL, which PostgreSQL refuses to store."""
    return text.replace("\0", "").strip()


def distinct(ids: Iterable[int]) -> list[int]:
    """Return each id once; 0, which no row has, for those that no row can have."""
    return list(dict.fromkeys(pk if abs(pk) <= _LARGEST else 0 for pk in ids))


def _bounded(ids: Iterable[int]) -> tuple[list[int], Counter[str]]:
    """Return at most BULK_LIMIT distinct ids, and a count of those left out."""
    wanted = distinct(ids)
    left_out = max(len(wanted) - settings.BULK_LIMIT, 0)
    return wanted[: settings.BULK_LIMIT], Counter({Skip.OVER_LIMIT.value: left_out})


def in_batches(
    ids: Iterable[int], verb: str, act: Callable[[list[DeadLetter]], tuple[list[int], Skip]]
) -> BulkResult:
    """Lock eligible rows batch by batch, let `act` change them, and count.

    `act` returns the keys it changed and why it left the others alone.
    """
    bounded, skipped = _bounded(ids)
    # In key order everywhere, so that two bulk actions cannot wait for each other.
    wanted = sorted(bounded)
    done = 0
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        with transaction.atomic():
            rows = list(
                DeadLetter.objects.filter(pk__in=batch)
                .only(
                    "pk",
                    "status",
                    "job_id",
                    "actor",
                    "assignee_id",
                    "urgency",
                    "due_at",
                    "snoozed_at",
                    "ticket_url",
                    "release",
                )
                .order_by("pk")
                # no_key: a note may be added meanwhile.
                .select_for_update(no_key=True)
            )
            eligible = [row for row in rows if row.status in ELIGIBLE[verb]]
            changed, why_not = act(eligible)
        skipped.update(
            SKIP_BY_STATUS[DeadLetterStatus(row.status)].value
            for row in rows
            if row.status not in ELIGIBLE[verb]
        )
        skipped[why_not.value] += len(eligible) - len(changed)
        skipped[Skip.GONE.value] += len(batch) - len(rows)
        done += len(changed)
    requested = len(wanted) + skipped[Skip.OVER_LIMIT.value]
    return BulkResult(requested, done, {why: n for why, n in skipped.items() if n})


def change(ids: list[int], verb: str, **values: object) -> None:
    """Update the rows still in an eligible status; all or nothing.

    Raises:
        InvalidTransition: a row changed although it was locked, as on a database whose
            transactions do not serialise writers.
    """
    changed = DeadLetter.objects.filter(pk__in=ids, status__in=ELIGIBLE[verb]).update(**values)
    if changed != len(ids):
        raise InvalidTransition(f"{len(ids) - changed} dead letters changed meanwhile.")
