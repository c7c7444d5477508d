"""Use cases on jobs: look up, enqueue, schedule, cancel, reschedule, run now.

Each verb checks the permission itself, touches at most `BULK_LIMIT` jobs, writes its audit
entries in the transaction of the act, and may be pressed twice: what it does not apply to is
skipped, and the result says why.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import Count, Q, TextChoices
from django.utils.translation import gettext_lazy as _
from dramatiq import get_broker
from dramatiq.message import Message

from . import audit, dispatcher, events, ledger, outbox, payloads
from .brokers.transport import BrokerUnavailable
from .clock import now
from .conf import settings
from .deadletters import BulkResult
from .exceptions import InvalidMessage, NotPermitted
from .models import Job
from .policies import MAX_DELAY_MS
from .resolver import get_resolver
from .states import TIMED, UNFINISHED, JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from .models.job import JobQuerySet

TARGET = "job"
BATCH = 500  # one transaction each; keeps every lock short
#: No job is scheduled further ahead.
FURTHEST = timedelta(milliseconds=10 * MAX_DELAY_MS)

#: In which state a job may be subject to each verb.
ELIGIBLE: dict[str, tuple[JobState, ...]] = {
    "cancel": UNFINISHED,
    "reschedule": (*TIMED, JobState.WAITING),
    "retry": TIMED,
}


class Skip(TextChoices):
    """Why a verb left a job as it was."""

    WAITING = "already due", _("already due")
    ACTIVE = "already running", _("already running")
    COMPLETED = "already completed", _("already completed")
    DEAD = "failed for good", _("failed for good; requeue its dead letter instead")
    CANCELLED = "already cancelled", _("already cancelled")
    CANCELLING = "cancel requested already", _("cancel requested already")
    WITH_WORKER = "already with a worker", _("already with a worker, or on its way there")
    GONE = "no longer there", _("no longer there")
    MOVED = "changed meanwhile", _("changed meanwhile")
    OVER_LIMIT = "over the limit of one action", _("over the limit of one action")


_SKIP_BY_STATE = {
    JobState.SCHEDULED: Skip.MOVED,
    JobState.RETRYING: Skip.MOVED,
    JobState.WAITING: Skip.WAITING,
    JobState.ACTIVE: Skip.ACTIVE,
    JobState.COMPLETED: Skip.COMPLETED,
    JobState.DEAD: Skip.DEAD,
    JobState.CANCELLED: Skip.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class CancelResult(BulkResult):
    """Jobs certain not to run (`done`), and those of which that is not certain yet."""

    #: In a worker's hands, or the broker was away: they do not start, or are interrupted,
    #: and end as cancelled, unless they complete before.
    stopping: int = 0


def get(job_id: str) -> Job:
    """Return a job.

    Raises:
        Job.DoesNotExist: there is no such job (any more).
    """
    if "\0" in job_id:
        raise Job.DoesNotExist(f"No id of a job contains NUL: {job_id!r:.100}.")
    return Job.objects.get(pk=job_id)


def list(
    *,
    state: str = "",
    queue: str = "",
    actor: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> "JobQuerySet":
    """Return jobs, newest first, without their payloads; slice it to page.

    Args:
        state: one of `JobState`, or "failed" for retrying and dead ones.
        queue: only of this queue.
        actor: only of this actor.
        since: only those enqueued at this time or later.
        until: only those enqueued before.

    Raises:
        ValueError: there is no such state.
    """
    jobs = Job.objects.for_list().order_by("-enqueued_at", "pk")
    if state == "failed":
        jobs = jobs.failed()
    elif state in JobState.values:
        jobs = jobs.filter(state=state)
    elif state:
        known = ", ".join([*JobState.values, "failed"])
        raise ValueError(f"No state is named {state!r:.50}; known: {known}.")
    if queue:
        jobs = jobs.in_any_state()
    wanted = {"queue": queue, "actor": actor, "enqueued_at__gte": since, "enqueued_at__lt": until}
    return jobs.filter(**{name: value for name, value in wanted.items() if value})


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job that an enqueue leads to."""

    job_id: str
    #: False where another job holds the unique key; `job_id` names that one.
    is_new: bool


def enqueue(
    actor_name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    by: "User | None",
    queue: str = "",
    at: datetime | None = None,
    priority: str = "",
    unique_key: str = "",
    reason: str = "",
) -> Enqueued:
    """Enqueue a job by hand; code sends its actors' messages instead.

    Only what is named here can be chosen: other options of a message change how the engine
    treats it and belong to the actor's code.

    Args:
        actor_name: an actor that this process knows.
        args: its arguments by position.
        kwargs: its arguments by name.
        by: who asks; None for a program.
        queue: refuse an actor of another queue; "" takes any.
        at: when it is due; None and what has passed mean now.
        priority: "high", "normal" or "low"; "" leaves it to the actor.
        unique_key: of jobs with this key and actor one is unfinished at a time.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` may not enqueue by hand.
        InvalidMessage: no such actor, not of this queue, or not what it takes; `field` says
            which.
        ValueError: the time has no zone, or is more than 10 years away.
    """
    _require(by, "enqueue_job")
    actors = payloads.known_actors()
    actor = actors.get(actor_name)
    if actor is None:
        near = get_close_matches(actor_name, actors, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InvalidMessage(f"No actor is named {actor_name!r:.100}{hint}", field="actor")
    if queue and actor.queue_name != queue:
        raise InvalidMessage(
            f"{actor_name} belongs to the queue {actor.queue_name!r}, not to {queue!r:.100}.",
            field="actor",
        )
    options: dict[str, Any] = {
        name: value for name, value in (("priority", priority), ("unique_key", unique_key)) if value
    }
    if at is not None and (due := _checked(at)) > now():
        options["eta"] = round(due.timestamp() * 1000)
    message = actor.message_with_options(args=tuple(args), kwargs=dict(kwargs or {}), **options)
    with transaction.atomic():
        sent = get_broker().enqueue(message)
        is_new = sent.message_id == message.message_id
        if is_new:
            audit.record(
                "enqueue", TARGET, [sent.message_id], by=by, reason=_clean(reason), actor=actor_name
            )
    return Enqueued(sent.message_id, is_new)


def schedule(message: Message[Any], *, at: datetime) -> Message[Any]:
    """Enqueue a message to run at a time; what has passed means now.

    Raises:
        InvalidMessage: the message cannot be stored or run.
        ValueError: the time has no zone, or is more than 10 years away.
    """
    eta = round(_checked(at).timestamp() * 1000)
    return get_broker().enqueue(message.copy(options={"eta": eta}))


def cancel(job_ids: Iterable[str] | str, *, by: "User | None", reason: str = "") -> CancelResult:
    """Cancel jobs: scheduled, retrying and waiting ones for certain, running ones if possible.

    A running one is interrupted with `queueadmin.exceptions.Cancelled`. In a transaction the
    broker is asked after its commit, so that waiting jobs count as stopping until then.

    Args:
        job_ids: one id, or several.
        by: who asks; None for a program.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` may not cancel jobs.
    """
    _require(by, "cancel_job")
    broker: Any = get_broker()
    stopping: dict[str, int] = {}

    def act(ids: Iterable[str]) -> Iterable[str]:
        ended, held = ledger.cancel(ids)
        changed = [*(job.job for job in ended), *(parcel.job for parcel in held)]
        audit.record("cancel", TARGET, changed, by=by, reason=_clean(reason))
        transaction.on_commit(partial(events.cancelled, ended))
        if held:
            stopping.update({parcel.job: parcel.dispatch for parcel in held})
            # Robust: the cancel is noted, and the dispatcher carries on with it.
            transaction.on_commit(partial(_withdraw, broker, held), robust=True)
        return changed

    result = _in_batches(job_ids, "cancel", act)
    still = len(stopping)
    if stopping and not connection.in_atomic_block:
        still = sum(
            Job.objects.cancelling().filter(pk__in=batch).count()
            for batch in _batches(sorted(stopping))
        )
    return CancelResult(
        requested=result.requested,
        done=result.done - still,
        skipped=result.skipped,
        stopping=still,
    )


def _withdraw(broker: Any, parcels: Any) -> None:
    try:
        dispatcher.withdraw(broker, parcels)
    except BrokerUnavailable as error:
        broker.logger.warning("Broker unavailable (%s); cancelling later.", error)


def reschedule(
    job_ids: Iterable[str] | str, to: datetime, *, by: "User | None", reason: str = ""
) -> BulkResult:
    """Make scheduled, retrying and waiting jobs due at a time; what has passed means now.

    A job that a worker has taken, although it may not run yet, is skipped.

    Args:
        job_ids: one id, or several.
        to: when they are due.
        by: who asks; None for a program.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` may not reschedule jobs.
        ValueError: the time has no zone, or is more than 10 years away.
    """
    _require(by, "reschedule_job")
    to = _checked(to)
    broker: Any = get_broker()

    def withdraw(parcels: Any) -> set[str]:
        try:
            taken = broker.transport.withdraw(parcels)
        except BrokerUnavailable as error:
            broker.logger.warning("Broker unavailable (%s); nothing waiting is moved.", error)
            return set()
        return {parcel.job for parcel in parcels if parcel.id in taken}

    def act(ids: Iterable[str]) -> Iterable[str]:
        changed = ledger.reschedule(ids, to, withdraw)
        audit.record("reschedule", TARGET, changed, by=by, reason=_clean(reason), to=to.isoformat())
        return changed

    return _in_batches(job_ids, "reschedule", act)


def retry(job_ids: Iterable[str] | str, *, by: "User | None", reason: str = "") -> BulkResult:
    """Run scheduled and retrying jobs now; a dead one is requeued by its dead letter.

    Args:
        job_ids: one id, or several.
        by: who asks; None for a program.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` may not run jobs now.
    """
    _require(by, "retry_job")

    def act(ids: Iterable[str]) -> Iterable[str]:
        changed = ledger.run_now(ids)
        outbox.push_jobs(changed)
        audit.record("retry", TARGET, changed, by=by, reason=_clean(reason))
        return changed

    return _in_batches(job_ids, "retry", act)


def preview(job_ids: Iterable[str] | str, verb: str) -> BulkResult:
    """Return what `verb` would do to these jobs now; change nothing.

    Only states are looked at: a job that a worker took meanwhile shows in the real result.
    """
    wanted, skipped = _bounded(job_ids)
    done = 0
    for batch in _batches(wanted):
        counts = (
            Job.objects.filter(pk__in=batch)
            .order_by()
            .annotate(asked=Q(cancel_requested_at__isnull=False))
            .values_list("state", "asked")
            .annotate(number=Count("pk"))
        )
        for state, is_cancelling, number in counts:
            if state not in ELIGIBLE[verb]:
                skipped[_SKIP_BY_STATE[JobState(state)].value] += number
            elif is_cancelling:
                skipped[Skip.CANCELLING.value] += number
            else:
                done += number
    requested = len(wanted) + skipped[Skip.OVER_LIMIT.value]
    skipped[Skip.GONE.value] = requested - done - skipped.total()
    return BulkResult(requested, done, {why: n for why, n in skipped.items() if n})


def _in_batches(
    job_ids: Iterable[str] | str, verb: str, act: Callable[[Iterable[str]], Iterable[str]]
) -> BulkResult:
    """Let `act` change the jobs batch by batch, and say why the others were left alone."""
    wanted, skipped = _bounded(job_ids)
    done = 0
    # In the order of their ids everywhere, so that two bulk actions cannot lock each other out.
    for batch in _batches(sorted(wanted)):
        with transaction.atomic():
            changed = set(act(batch))
            left = set(batch) - changed
            rows = Job.objects.filter(pk__in=left).only("state", "cancel_requested_at")
            reasons = [_reason(job, verb) for job in rows] if left else []
        skipped.update(reason.value for reason in reasons)
        skipped[Skip.GONE.value] += len(left) - len(reasons)
        done += len(changed)
    requested = len(wanted) + skipped[Skip.OVER_LIMIT.value]
    return BulkResult(requested, done, {why: n for why, n in skipped.items() if n})


def _reason(job: Job, verb: str) -> Skip:
    if job.is_cancelling:
        return Skip.CANCELLING
    if verb == "reschedule" and job.state == JobState.WAITING:
        return Skip.WITH_WORKER
    return _SKIP_BY_STATE[JobState(job.state)]


def _bounded(job_ids: Iterable[str] | str) -> tuple[tuple[str, ...], Counter[str]]:
    """Return at most BULK_LIMIT distinct ids, and a count of those left out."""
    given = (job_ids,) if isinstance(job_ids, str) else job_ids
    # No stored id has NUL, and PostgreSQL refuses the very question.
    wanted = tuple(dict.fromkeys(job_id.replace("\0", "\ufffd") for job_id in given))
    left_out = max(len(wanted) - settings.BULK_LIMIT, 0)
    return wanted[: settings.BULK_LIMIT], Counter({Skip.OVER_LIMIT.value: left_out})


def _batches(ids: "tuple[str, ...] | Any") -> Iterable[Any]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _checked(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"The time {at} needs a time zone; see django.utils.timezone.make_aware.")
    if at - now() > FURTHEST:
        raise ValueError(f"The time {at} is more than 10 years away.")
    return max(at, now())


def _clean(text: str) -> str:
    """Drop outer blanks and NUL, which PostgreSQL refuses to store."""
    return text.replace("\0", "").strip()


def _require(by: "User | None", verb: str) -> None:
    if by is not None and not get_resolver().may(by, verb):
        raise NotPermitted(f"{by.get_username()} lacks the permission queueadmin.{verb}.")
