"""Helpers for the tests of projects that use queueadmin; docs/testing.md shows them at work."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from queue import PriorityQueue
from traceback import format_exception
from typing import Any

import dramatiq
from django.db import connections, transaction
from dramatiq.broker import MessageProxy
from dramatiq.message import Message
from dramatiq.worker import WorkerThread

from . import clock, ledger, payloads
from .consumer import Delivery
from .models import DeadLetter, Job
from .outbox import Outbox
from .signatures import check_message, position_names
from .states import DeathCause, JobState, Outcome

logger = logging.getLogger(__name__)

# Between two looks at the clock while a job is enqueued.
_TOLERANCE = timedelta(seconds=2)
_MOST_SHOWN = 20


class _Collector:
    """Stands where Dramatiq's worker expects its consumers; keeps the finished delivery."""

    def __init__(self) -> None:
        self.finished: list[Delivery] = []

    def post_process_message(self, message: MessageProxy) -> None:
        self.finished.append(message)  # type: ignore[arg-type]


def run_jobs(*, limit: int = 10_000) -> int:
    """Run every due job in this thread until none is left; return how many runs that took.

    It works inside `TestCase` too, where nothing is ever committed: jobs are taken from
    the ledger, pass the same middleware as in a worker, and their endings are recorded as
    by a worker. What waits for a commit (`transaction.on_commit`) is run first, and after
    each job, as if the test's transaction had been committed; so do not call it inside a
    transaction of the code under test. What is due later stays; move the clock and call again.

    Args:
        limit: runs after which something must be wrong.

    Raises:
        RuntimeError: the limit is reached, most likely by jobs that enqueue each other.
    """
    broker: Any = dramatiq.get_broker()
    collector = _Collector()
    thread = WorkerThread(
        broker=broker,
        consumers=defaultdict(lambda: collector),  # type: ignore[arg-type,return-value]
        work_queue=PriorityQueue(),
        worker_timeout=1,
    )
    runs = 0
    while True:
        _run_hooks()
        ledger.promote_due(clock.now(), limit)
        with transaction.atomic():
            # No worker holds anything here, so a cancel is certain at once.
            ledger.cancel_withdrawn(ledger.cancelling(limit))
        waiting = Job.objects.filter(state=JobState.WAITING).order_by("priority", "due_at", "pk")
        parcels = ledger.parcels_of(waiting[:limit])
        if not parcels:
            return runs
        for parcel in parcels:
            if runs >= limit:
                raise RuntimeError(f"Still busy after {limit} runs; do jobs enqueue each other?")
            runs += 1
            delivery = Delivery(
                payloads.open_message(Message.decode(parcel.data)),
                parcel_id=parcel.id,
                dispatch=parcel.dispatch,
            )
            broker.knows(delivery._message)
            thread.work_queue.put(delivery)  # type: ignore[arg-type]
            thread.work_queue.get()
            thread.process_message(delivery)
            ledger.commit([collector.finished.pop().ending])
            _run_hooks()


def assert_enqueued(
    actor: Any,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    times: int | None = None,
) -> list[Job]:
    """Fail unless such a job was enqueued; return those that were, in their order.

    Jobs that have run since count, too: the ledger keeps them.

    Args:
        actor: an actor, a task of Django's framework, or the name of either.
        args: what was given by position, if that matters.
        kwargs: what was given by name, if that matters. An argument is compared by its
            parameter, whichever way it was given.
        queue: the queue it is on, if that matters.
        delay: after how long it was due, give or take 2 seconds; none is `timedelta(0)`.
        at: when it is due, give or take 2 seconds.
        times: how many there must be; one or more unless told.

    Raises:
        AssertionError: names what was enqueued instead.
    """
    found = _enqueued(actor, args, kwargs, queue, delay, at)
    if (not found) if times is None else len(found) != times:
        wanted = "" if times is None else f" {times} times, but {len(found)} times"
        raise AssertionError(f"{_name(actor)} was not enqueued like this{wanted}. {_all_jobs()}")
    return found


def assert_not_enqueued(
    actor: Any = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
) -> None:
    """Fail if such a job was enqueued; without arguments, if any was.

    Args:
        actor: as for `assert_enqueued`; None means any.
        args: as for `assert_enqueued`, and so the following.
        kwargs: see above.
        queue: see above.
        delay: see above.
        at: see above.

    Raises:
        AssertionError: names what was enqueued.
    """
    if _enqueued(actor, args, kwargs, queue, delay, at):
        what = "A job" if actor is None else _name(actor)
        raise AssertionError(f"{what} was enqueued. {_all_jobs()}")


def make_dead_letter(
    actor: Any,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    error: BaseException | None = None,
    cause: DeathCause = DeathCause.ATTEMPTS_EXHAUSTED,
) -> DeadLetter:
    """Make a job that has failed for good, and its dead letter, as a worker would have.

    The actor does not run; requeue the dead letter and `run_jobs()` runs it.

    Args:
        actor: an actor, or a task of Django's framework.
        args: its arguments by position.
        kwargs: its arguments by name.
        queue: where it stands; the actor's own unless told.
        error: what its last attempt raised.
        cause: why it died.

    Raises:
        InvalidMessage: the arguments do not fit the actor.
    """
    broker: Any = dramatiq.get_broker()
    known = broker.get_actor(_name(actor))
    message = known.message_with_options(args=tuple(args), kwargs=dict(kwargs or {}))
    if queue is not None:
        message = message.copy(queue_name=queue)
    failure = error if error is not None else RuntimeError("made by a test")
    at = clock.now()
    # Not by `enqueue`, which would give it to the broker, and so to a worker.
    check_message(message, broker.actors)
    job = broker.new_job(message)
    ending = ledger.Ending(
        job=job.id,
        dispatch=1,
        state=JobState.DEAD,
        outcome=Outcome.DEAD,
        attempt=job.max_attempts or 1,
        started_at=at,
        finished_at=at,
        queue=job.queue,
        actor=job.actor,
        cause=cause,
        error_class=type(failure).__qualname__,
        error_message=str(failure),
        traceback="".join(format_exception(failure)),
    )
    with transaction.atomic():
        ledger.insert([job])
        ledger.commit([ending])
    return DeadLetter.objects.get(job_id=job.id)


def _run_hooks() -> None:
    """Run what waits for the commit that a test's transaction never makes.

    All but the pushes to the broker: the jobs are run from the ledger, and a message would
    outlive the test.
    """
    for connection in connections.all(initialized_only=True):
        while connection.in_atomic_block and connection.run_on_commit:
            hooks: list[Any] = list(connection.run_on_commit)
            # Another list, as after a commit; an outbox sees by that that it is over.
            connection.run_on_commit = []
            for _savepoints, hook, is_robust in hooks:
                if isinstance(getattr(hook, "__self__", None), Outbox):
                    continue
                try:
                    hook()
                except Exception:
                    if not is_robust:
                        raise
                    logger.exception("A robust hook of on_commit failed.")


def _name(actor: Any) -> str:
    """Return the name of an actor, which of a task is its path."""
    if isinstance(actor, str):
        return actor
    return str(getattr(actor, "actor_name", None) or actor.module_path)


def _enqueued(
    actor: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    queue: str | None,
    delay: timedelta | None,
    at: datetime | None,
) -> list[Job]:
    wanted = {"actor": None if actor is None else _name(actor), "queue": queue}
    jobs = Job.objects.filter(**{name: value for name, value in wanted.items() if value})
    found = []
    for job in jobs.order_by("enqueued_at", "pk"):
        waited = job.due_at - job.enqueued_at
        if delay is not None and abs(waited - delay) > _TOLERANCE:
            continue
        if at is not None and abs(job.due_at - at) > _TOLERANCE:
            continue
        if (args, kwargs) != (None, None) and _bound(job.actor, args or (), kwargs or {}) != (
            _arguments(job)
        ):
            continue
        found.append(job)
    return found


def _arguments(job: Job) -> list[tuple[str, Any]]:
    payload = job.payload or {}
    return _bound(job.actor, payload.get("args") or (), payload.get("kwargs") or {})


def _bound(actor: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return arguments by the names of their parameters, as JSON has them."""
    message: Message[Any] = Message("", actor, tuple(args), dict(kwargs), {})
    plain = payloads.decoded(payloads.encode(message, {})) or {}
    known = dramatiq.get_broker().actors.get(actor)
    if known is None:
        names = [str(place) for place in range(len(args))]
    else:
        names = position_names(known, len(args))
    return sorted([*zip(names, plain["args"], strict=True), *plain["kwargs"].items()], key=repr)


def _all_jobs() -> str:
    """Say what was enqueued, for the message of a failed assertion."""
    jobs = list(Job.objects.order_by("enqueued_at", "pk")[: _MOST_SHOWN + 1])
    if not jobs:
        return "No job was enqueued."
    lines = [
        f"  {job.actor}({', '.join(f'{name}={value!r:.80}' for name, value in _arguments(job))}) "
        f"on {job.queue}, due after {(job.due_at - job.enqueued_at).total_seconds():.0f} s"
        for job in jobs[:_MOST_SHOWN]
    ]
    more = ["  …"] if len(jobs) > _MOST_SHOWN else []
    return "\n".join(["Enqueued were:", *lines, *more])
