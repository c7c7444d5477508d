"""Guarded requeues: a frozen list, a canary, a rate, and a stop when too many fail again.

An operation is a row; whoever leads the dispatchers carries it on, so that it survives
restarts and looks the same to everybody. A turn (`carry_on`) may be interrupted anywhere
and may happen in two processes at once: jobs are released only by the one whose UPDATE
moved `released_at`, in the transaction that requeues them; results are read from the
dead letters, by conditional updates; the status moves by conditional updates too. So of a
dispatcher that goes on and a person who pauses at the same time one comes first, and
after the pause is committed nothing is released.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Count, F, OuterRef, Q
from django.utils.translation import gettext as _

from . import audit, deadletters, replacing, runbooks
from .clock import now
from .conf import settings
from .deadletters import Skip
from .exceptions import NotPermitted
from .models import DeadLetter, FailureGroup, OperationItem, RequeueOperation
from .replacing import Replacement
from .states import DeadLetterStatus, ItemState, JobState, OperationStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)

TARGET = "requeue operation"
PERMISSION = "requeue_deadletter"
MAX_RATE = 1_000.0
#: Results without which no share of failures is judged.
MINIMUM = 10
# A turn that comes late makes up for two seconds at most, or a pause would end in a flood.
_CATCH_UP_SECONDS = 2.0
_INSERT_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Preview:
    """What a requeue of a selection would do now."""

    requested: int
    eligible: int
    #: Keys of what is left out, by reason.
    skipped: dict[str, list[int]] = field(default_factory=dict)
    #: Why an actor does not take the new value of a replacement, where that is so.
    problem: str = ""
    #: Some of those that a replacement changes.
    examples: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation is; the numbers add up to its total."""

    waiting: int = 0
    sent: int = 0
    recovered: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All jobs of the frozen list."""
        return self.waiting + self.sent + self.recovered + self.failed + self.skipped

    @property
    def ended(self) -> int:
        """Jobs whose repeat has a result."""
        return self.recovered + self.failed

    @property
    def released(self) -> int:
        """Jobs that were requeued so far."""
        return self.sent + self.ended

    @property
    def failed_percent(self) -> float:
        """Share of results that failed again."""
        return 100 * self.failed / self.ended if self.ended else 0.0

    @property
    def done_percent(self) -> int:
        """How much of the list is behind it."""
        return (
            round(100 * (self.total - self.waiting - self.sent) / self.total) if self.total else 0
        )


def preview(ids: Iterable[int], replacement: Replacement | None = None) -> Preview:
    """Return which of these dead letters a requeue would take, and why not the others."""
    wanted, over = _bounded(ids)
    skipped: dict[str, list[int]] = {Skip.OVER_LIMIT.value: over} if over else {}
    found, problem, examples = _obstacles_to(wanted, replacement)
    eligible = 0
    for pk in wanted:
        reason = found.get(pk, Skip.GONE)
        if reason is None:
            eligible += 1
        else:
            skipped.setdefault(reason.value, []).append(pk)
    return Preview(len(wanted) + len(over), eligible, skipped, problem, examples)


def create(
    ids: Iterable[int],
    *,
    by: "User | None",
    name: str,
    reason: str = "",
    rate: float = 20.0,
    canary: int = 10,
    stop_at_percent: int = 20,
    start_at: datetime | None = None,
    group: FailureGroup | None = None,
    replacement: Replacement | None = None,
) -> RequeueOperation:
    """Freeze a list of dead letters and requeue it under guard from `start_at` on.

    Args:
        ids: primary keys of the dead letters; requeued in this order.
        by: who asks and answers for it; None for a program.
        name: what people call it.
        reason: why a repeat is worth it.
        rate: jobs per second.
        canary: jobs that run first; the rest waits for how they end. 0 for none.
        stop_at_percent: share of failures at which it stops by itself.
        start_at: when it starts; None for now.
        group: the failure group it is about.
        replacement: what of their arguments is changed before each is requeued.

    Raises:
        NotPermitted: `by` may not requeue, or not change many.
        ValueError: a number is out of its range, the name is empty, or nothing is eligible.
    """
    audit.require(by, PERMISSION)
    if replacement is not None:
        replacing.require(by)
    name = name.replace("\0", "").strip()
    if not name:
        raise ValueError("A requeue operation needs a name.")
    if not 0 < rate <= MAX_RATE:
        raise ValueError(f"The rate is more than 0 and at most {MAX_RATE:g} jobs/s, not {rate}.")
    if not 1 <= stop_at_percent <= 100:
        raise ValueError(f"The share of failures is from 1 to 100 %, not {stop_at_percent}.")
    if canary < 0:
        raise ValueError(f"The canary is 0 or more jobs, not {canary}.")
    wanted, _over = _bounded(ids)
    at = now()
    with transaction.atomic():
        if replacement is not None:
            # An erasure locks them as well: either it finds the operation, or this finds the
            # jobs erased and leaves them out.
            list(
                DeadLetter.objects.select_for_update()
                .filter(pk__in=wanted)
                .order_by("pk")
                .values_list("pk", flat=True)
            )
        obstacles, _problem, _examples = _obstacles_to(wanted, replacement)
        listed = [pk for pk in wanted if pk in obstacles]
        if all(obstacles.values()):
            raise ValueError("None of these dead letters can be requeued.")
        operation = RequeueOperation.objects.create(
            name=name[:100],
            reason=reason.replace("\0", "").strip(),
            owner=by,
            owner_name=by.get_username() if by is not None else audit.SYSTEM,
            is_automatic=by is None,
            group=group,
            rate=rate,
            canary=canary,
            stop_at_percent=stop_at_percent,
            total=len(listed),
            created_at=at,
            start_at=start_at or at,
            argument=replacement.argument if replacement else "",
            argument_before=replacement.before if replacement else "",
            argument_after=replacement.after if replacement else "",
        )
        OperationItem.objects.bulk_create(
            (
                OperationItem(
                    operation=operation,
                    dead_letter_id=pk,
                    position=position,
                    state=ItemState.SKIPPED if obstacles[pk] else ItemState.WAITING,
                    skip=obstacles[pk] or "",
                )
                for position, pk in enumerate(listed, start=1)
            ),
            batch_size=_INSERT_BATCH,
        )
        audit.record(
            "create",
            TARGET,
            [operation.pk],
            by=by,
            reason=operation.reason,
            name=operation.name,
            jobs=sum(not obstacle for obstacle in obstacles.values()),
            rate=rate,
            canary=canary,
            stop_at_percent=stop_at_percent,
            **({"argument": replacement.argument} if replacement else {}),
        )
    return operation


def pause(operation: int, *, by: "User | None", reason: str = "") -> bool:
    """Release no more jobs until somebody resumes; False when it was not under way.

    Raises:
        NotPermitted: `by` may not requeue.
    """
    audit.require(by, PERMISSION)
    with transaction.atomic():
        changed = _operation(operation, *RequeueOperation.UNDER_WAY).update(
            resumes_as=F("status"), status=OperationStatus.PAUSED, note=reason
        )
        if changed:
            audit.record("pause", TARGET, [operation], by=by, reason=reason)
    return bool(changed)


def resume(operation: int, *, by: "User | None", reason: str = "") -> bool:
    """Go on with what was paused, or stopped by itself; False when it was neither.

    After a stop a new count of failures begins, and an operation with a canary sends
    another one first.

    Raises:
        NotPermitted: `by` may not requeue.
    """
    audit.require(by, PERMISSION)
    at = now()
    with transaction.atomic():
        changed = _operation(operation, OperationStatus.PAUSED).update(
            status=F("resumes_as"), released_at=at, note=""
        )
        stopped = _operation(operation, OperationStatus.STOPPED)
        changed += stopped.filter(canary__gt=0).update(
            status=OperationStatus.CANARY, released_at=at, judged_since=at, note=""
        )
        changed += stopped.update(
            status=OperationStatus.RUNNING, released_at=at, judged_since=at, note=""
        )
        if changed:
            audit.record("resume", TARGET, [operation], by=by, reason=reason)
    return bool(changed)


def abort(operation: int, *, by: "User | None", reason: str = "") -> bool:
    """End it; jobs that were requeued go on, the others stay dead. False when it had ended.

    Raises:
        NotPermitted: `by` may not requeue.
    """
    audit.require(by, PERMISSION)
    with transaction.atomic():
        changed = _operation(
            operation,
            *RequeueOperation.UNDER_WAY,
            OperationStatus.PAUSED,
            OperationStatus.STOPPED,
        ).update(status=OperationStatus.ABORTED, finished_at=now(), note=reason)
        if changed:
            audit.record("abort", TARGET, [operation], by=by, reason=reason)
    return bool(changed)


def progress(operations: Iterable[RequeueOperation]) -> dict[int, Progress]:
    """Return how far each operation is, in one query."""
    counts: dict[int, dict[str, int]] = {operation.pk: {} for operation in operations}
    rows = (
        OperationItem.objects.filter(operation__in=list(counts))
        .order_by()
        .values_list("operation", "state")
        .annotate(number=Count("pk"))
    )
    for operation, state, number in rows:
        counts[operation][state] = number
    return {pk: Progress(**found) for pk, found in counts.items()}


# --- Carried on by the dispatcher -------------------------------------------------------


def carry_on(broker: "LedgerBroker | None" = None) -> int:
    """Give every operation its turn; return how many jobs were released.

    A duty of the dispatcher. Also results of operations that a person paused or ended
    while jobs of theirs were running are taken here.
    """
    released = 0
    for operation in RequeueOperation.objects.exclude(
        status__in=RequeueOperation.ENDED
    ).select_related("owner"):
        try:
            released += _turn(operation)
        except (DatabaseError, InterfaceError):
            raise
        except Exception as error:
            # Boundary: one broken operation must stop neither the others nor the dispatcher.
            logger.exception("Requeue operation %d stops.", operation.pk)
            _stop(operation, f"{type(error).__name__}: {error}")
    ended = OperationItem.objects.filter(
        operation__status=OperationStatus.ABORTED, state=ItemState.SENT
    )
    for pk in set(ended.values_list("operation", flat=True)[:_INSERT_BATCH]):
        _settle(pk)
    return released


def _turn(operation: RequeueOperation) -> int:
    at = now()
    if operation.status == OperationStatus.SCHEDULED:
        if operation.start_at > at:
            return 0
        first = OperationStatus.CANARY if operation.canary else OperationStatus.RUNNING
        _move(operation, first, started_at=at, released_at=at, judged_since=at)
        return 0
    _settle(operation.pk)
    if operation.status not in RequeueOperation.UNDER_WAY:
        return 0
    whole = progress([operation])[operation.pk]
    judged = _judged(operation)
    if whole.waiting == whole.sent == 0:
        _finish(operation, whole)
        return 0
    if _has_failed(operation, judged, whole):
        _stop(
            operation,
            _("%(failed)d of %(ended)d failed again (%(share).0f %%).")
            % {"failed": judged.failed, "ended": judged.ended, "share": judged.failed_percent},
        )
        return 0
    if operation.status == OperationStatus.CANARY:
        if judged.sent == 0 and (judged.ended >= operation.canary or not whole.waiting):
            _move(operation, OperationStatus.RUNNING)
            return 0
        return _release(operation, at, operation.canary - judged.released)
    return _release(operation, at, whole.waiting)


def _settle(operation: int) -> None:
    """Read from the dead letters how released jobs ended.

    A job that died again has one more death than when it was released, whatever was done
    to its dead letter since.
    """
    sent = OperationItem.objects.filter(operation=operation, state=ItemState.SENT)
    if not sent.exists():
        return
    at = now()
    for state, why, condition in (
        (ItemState.FAILED, "", Q(dead_letter__deaths__gt=F("deaths"))),
        (ItemState.RECOVERED, "", Q(dead_letter__status=DeadLetterStatus.RECOVERED)),
        (
            ItemState.SKIPPED,
            "cancelled or closed meanwhile",
            Q(dead_letter__status=DeadLetterStatus.PERMANENTLY_FAILED)
            | Q(dead_letter__job__state=JobState.CANCELLED),
        ),
    ):
        sent.filter(condition).update(state=state, skip=why, ended_at=at)


def _judged(operation: RequeueOperation) -> Progress:
    """Count what was released since a person last decided that it goes on."""
    rows = (
        OperationItem.objects.filter(operation=operation, sent_at__gte=operation.judged_since)
        .order_by()
        .values_list("state")
        .annotate(number=Count("pk"))
    )
    return Progress(**dict(rows))


def _has_failed(operation: RequeueOperation, judged: Progress, whole: Progress) -> bool:
    """Return whether so many failed that it must stop.

    A canary is judged against its whole size, so that its first failure alone proves
    nothing; the rest against at least MINIMUM results, or all there are.
    """
    if not judged.failed:
        return False
    if operation.status == OperationStatus.CANARY:
        size = min(operation.canary, judged.released + whole.waiting)
        return 100 * judged.failed >= operation.stop_at_percent * size
    is_enough = judged.ended >= MINIMUM or whole.waiting == 0
    return is_enough and judged.failed_percent >= operation.stop_at_percent


def _release(operation: RequeueOperation, at: datetime, most: int) -> int:
    """Requeue as many as the rate allows since the last release; one dispatcher wins."""
    last = operation.released_at or at
    allowed = int(min((at - last).total_seconds(), _CATCH_UP_SECONDS) * operation.rate)
    if (at - last).total_seconds() * operation.rate >= 1:
        allowed = max(allowed, 1)
    number = min(allowed, most)
    if number <= 0:
        return 0
    with transaction.atomic():
        # The token: whoever finds it as it was read may release, and holds the row until
        # the jobs are requeued; a pause at the same moment waits, or has come first.
        if not (
            _operation(operation.pk, OperationStatus(operation.status))
            .filter(released_at=operation.released_at)
            .update(released_at=max(last + timedelta(seconds=number / operation.rate), at - _SLACK))
        ):
            return 0
        items = list(
            OperationItem.objects.filter(operation=operation, state=ItemState.WAITING)
            .order_by("position")
            .only("pk", "dead_letter_id")[:number]
        )
        return _requeue(operation, [item.dead_letter_id for item in items], at)


#: What a slow turn may keep for the next one.
_SLACK = timedelta(seconds=0.5)


def _requeue(operation: RequeueOperation, ids: list[int], at: datetime) -> int:
    if operation.owner is None and not operation.is_automatic:
        _stop(operation, _("The account of its owner is gone."))
        return 0
    # Locked here, so that whoever is requeued below was requeued by us.
    pending = dict(
        DeadLetter.objects.pending()
        .filter(pk__in=ids)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk", "deaths")
    )
    replacement = Replacement.of(operation)
    reason = f"{operation.name}: {operation.reason}".rstrip(": ")
    known: dict[int, Skip] = {}
    try:
        if replacement is not None:
            known = replacing.requeue(pending, replacement, by=operation.owner, reason=reason)
        else:
            result = deadletters.requeue(pending, by=operation.owner, reason=reason)
            known = dict.fromkeys(result.held_by, Skip.KEY_HELD)
    except NotPermitted as error:
        _stop(operation, str(error))
        return 0
    status = dict(DeadLetter.objects.filter(pk__in=ids).values_list("pk", "status"))
    moved = [pk for pk in pending if status[pk] == DeadLetterStatus.REQUEUED]
    items = OperationItem.objects.filter(operation=operation, state=ItemState.WAITING)
    items.filter(dead_letter__in=moved).update(
        state=ItemState.SENT,
        sent_at=at,
        deaths=DeadLetter.objects.filter(pk=OuterRef("dead_letter")).values("deaths")[:1],
    )
    left = Counter[str]()
    unmoved = [pk for pk in ids if pk not in moved]
    obstacles = _obstacles(unmoved) if unmoved else {}
    for pk in unmoved:
        if pk in known:
            why = known[pk]
        elif pk in pending:
            why = obstacles.get(pk) or Skip.UNMOVABLE
        else:
            why = obstacles.get(pk, Skip.GONE) or Skip.UNCHANGED
        left[why.value] += items.filter(dead_letter=pk).update(
            state=ItemState.SKIPPED, skip=why.value, ended_at=at
        )
    logger.info("Operation %d released %d jobs, skipped %s", operation.pk, len(moved), dict(left))
    return len(moved)


def _finish(operation: RequeueOperation, whole: Progress) -> None:
    with transaction.atomic():
        if _move(operation, OperationStatus.FINISHED, finished_at=now()):
            audit.record(
                "finish",
                TARGET,
                [operation.pk],
                by=None,
                recovered=whole.recovered,
                failed=whole.failed,
                skipped=whole.skipped,
            )


def _stop(operation: RequeueOperation, why: str) -> None:
    with transaction.atomic():
        if _move(operation, OperationStatus.STOPPED, note=why[:2_000]):
            audit.record("stop", TARGET, [operation.pk], by=None, reason=why[:2_000])
            logger.warning("Requeue operation %d stopped: %s", operation.pk, why)


def _move(operation: RequeueOperation, status: OperationStatus, **values: object) -> bool:
    """Change the status unless somebody has changed it since it was read."""
    found = _operation(operation.pk, OperationStatus(operation.status))
    return bool(found.update(status=status, **values))


def _operation(pk: int, *statuses: OperationStatus) -> "QuerySet[RequeueOperation]":
    return RequeueOperation.objects.filter(pk=pk, status__in=statuses)


def _obstacles_to(
    ids: list[int], replacement: Replacement | None
) -> tuple[dict[int, Skip | None], str, list[int]]:
    """Return `_obstacles`, those to a replacement with them, and what a person is told of it."""
    found = _obstacles(ids)
    if replacement is None:
        return found, "", []
    change = replacing.preview([pk for pk in ids if found.get(pk, Skip.GONE) is None], replacement)
    return {**found, **change.obstacles}, change.problem, change.examples


def _obstacles(ids: list[int]) -> dict[int, Skip | None]:
    """Return why each of those that there are is not requeued; None for those that are."""
    unsafe = runbooks.unsafe_actors()
    rows = DeadLetter.objects.filter(pk__in=ids).values_list("pk", "status", "actor")
    return {
        pk: _obstacle(status) or (Skip.UNSAFE if actor in unsafe else None)
        for pk, status, actor in rows
    }


def _obstacle(status: str) -> Skip | None:
    """Return why a dead letter of this status is not requeued."""
    if status == DeadLetterStatus.PENDING:
        return None
    return deadletters.SKIP_BY_STATUS[DeadLetterStatus(status)]


def _bounded(ids: Iterable[int]) -> tuple[list[int], list[int]]:
    """Return the distinct ids within BULK_LIMIT, and those beyond."""
    wanted = deadletters.distinct(ids)
    return wanted[: settings.BULK_LIMIT], wanted[settings.BULK_LIMIT :]
