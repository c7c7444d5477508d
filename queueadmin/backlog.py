"""Takes over what plain Dramatiq has left on a server, and hands back what is still to do.

Coming: a message is set aside on the server, where no worker of plain Dramatiq fetches it any
more, then inserted under its own id, and only then dropped. Going: a job is ended in the
ledger, and only then its message is pushed, under an id that a Redis takes once. So either
way may be interrupted anywhere and repeated, and nothing runs on both sides; a RabbitMQ, which
knows no ids, gets the one message twice that was interrupted.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import urlsplit
from uuid import NAMESPACE_OID, uuid5

from django.db import transaction
from dramatiq.errors import DecodeError
from dramatiq.message import Message

from . import audit, clock, dispatcher, ledger, messages, payloads
from .brokers.base import LedgerBroker
from .brokers.plain import PlainQueues, Stored
from .exceptions import ConfigurationError, InvalidMessage, Undecryptable
from .ledger import leaving
from .models import Job
from .recorder import unreadable
from .states import TIMED, DeathCause, JobState, Outcome

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from .brokers.plain_rabbitmq import PlainRabbitMQ

logger = logging.getLogger(__name__)

_BATCH = 500
# "package.Error: text", the last line of a traceback.
_ERROR = re.compile(r"^([\w.]+)(?:: (.*))?$", re.DOTALL)

#: Told how many of how many messages or jobs have been looked at.
Tell = Callable[[int, int], None]
#: A job to insert, and how it ended if it has.
Read = tuple[ledger.NewJob, ledger.Ending | None]
#: Where plain Dramatiq's messages are.
Plain = Union[PlainQueues, "PlainRabbitMQ"]


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of the messages of one queue."""

    queue: str
    #: Jobs that wait now.
    waiting: int = 0
    #: Jobs that are due later.
    scheduled: int = 0
    #: Dead letters of what had failed for good.
    dead: int = 0
    #: Dead letters of what nobody can read.
    unreadable: int = 0
    #: In the ledger already, by an earlier call or as a second copy.
    known: int = 0
    #: Still in the hands of workers of plain Dramatiq; with RabbitMQ, how many consumers they have.
    held: int = 0


@dataclass(frozen=True, slots=True)
class HandedBack:
    """What became of the open jobs."""

    #: They are messages of plain Dramatiq now.
    handed_back: int = 0
    #: Our workers hold them, run them, or are told to stop them.
    held: int = 0
    #: Their messages cannot be opened here, such as for want of the key.
    unreadable: int = 0


def plain_of(url: str, namespace: str, broker: LedgerBroker) -> "Plain":
    """Return the queues of plain Dramatiq at an address.

    Args:
        url: of the server, as in the settings.
        namespace: of the keys on a Redis.
        broker: ours; a RabbitMQ is asked for the queues that it knows.

    Raises:
        ConfigurationError: the address is none of a server that plain Dramatiq uses, or its
            client is not installed.
    """
    if urlsplit(url).scheme not in ("amqp", "amqps"):
        return PlainQueues(url, namespace)
    try:
        from .brokers.plain_rabbitmq import PlainRabbitMQ
    except ModuleNotFoundError as error:
        if error.name != "amqp":
            raise
        raise ConfigurationError(
            "The client for RabbitMQ is not installed. Install it: "
            "pip install 'queueadmin[rabbitmq]'."
        ) from error
    return PlainRabbitMQ(url, broker.get_declared_queues())


# --- Coming -----------------------------------------------------------------------------
def preview(plain: Plain) -> list[Adopted]:
    """Count what `adopt` would find; unreadable ones are not told apart."""
    found = []
    for queue in plain.names():
        waiting, scheduled, dead = plain.count(queue)
        if waiting or scheduled or dead:
            found.append(Adopted(queue, waiting, scheduled, dead, held=plain.held(queue)))
    return found


def adopt(
    plain: Plain,
    broker: LedgerBroker,
    *,
    by: "User | None" = None,
    reason: str = "",
    tell: Tell = lambda done, total: None,
) -> list[Adopted]:
    """Take everything that no living worker of plain Dramatiq holds into the ledger.

    Args:
        plain: where it is.
        broker: ours.
        by: who adopts; None for a program.
        reason: why, in that person's words.
        tell: told how many of how many messages have been looked at.

    Raises:
        NotPermitted: `by` may not start a recovery.
        BrokerUnavailable: the server does not answer; call again.
    """
    audit.require(by, "run_recovery")
    names = plain.names()
    for queue in names:
        plain.collect(queue)
    total = sum(map(plain.number_aside, names))
    done = 0

    def note(number: int) -> None:
        nonlocal done
        done += number
        # What failed for good may have become more meanwhile.
        tell(done, max(done, total))

    found = [_adopt_queue(plain, broker, queue, note) for queue in names]
    found = [one for one in found if one != Adopted(one.queue)]
    for one in found:
        facts = {name: getattr(one, name) for name in Adopted.__slots__}
        audit.record("adopt backlog", "queue", [one.queue], by=by, reason=reason, **facts)
    return found


def _adopt_queue(
    plain: Plain, broker: LedgerBroker, queue: str, note: Callable[[int], None]
) -> Adopted:
    sums = Adopted(queue)
    for source in (plain.aside(queue), plain.aside(f"{queue}.DQ"), plain.dead(queue)):
        for batch in source:
            sums = _adopt_batch(broker, queue, batch, sums)
            note(len(batch))
    return replace(sums, held=plain.held(queue))


def _adopt_batch(
    broker: LedgerBroker, queue: str, batch: Iterable[Stored], sums: Adopted
) -> Adopted:
    jobs: dict[str, ledger.NewJob] = {}
    endings: dict[str, ledger.Ending] = {}
    total = 0
    for job, ending in _read_batch(broker, queue, list(batch)):
        # Of two copies of one message the first counts.
        if jobs.setdefault(job.id, job) is job and ending is not None:
            endings[job.id] = ending
        total += 1
    with transaction.atomic():
        new = ledger.insert(list(jobs.values()))
        dead = [ending for job, ending in endings.items() if job in new]
        if dead:
            ledger.commit(dead)
    waiting = [
        ledger.Parcel(job.id, 1, job.queue, job.priority, job.message)
        for job in jobs.values()
        if job.id in new and job.id not in endings and job.due_at is None
    ]
    if waiting:
        # What is not taken now is pushed by a dispatcher.
        broker.push(waiting)
    bad = sum(ending.cause == DeathCause.UNDECODABLE for ending in dead)
    return replace(
        sums,
        waiting=sums.waiting + len(waiting),
        scheduled=sums.scheduled + len(new) - len(waiting) - len(dead),
        dead=sums.dead + len(dead) - bad,
        unreadable=sums.unreadable + bad,
        known=sums.known + total - len(new),
    )


def _read_batch(broker: LedgerBroker, queue: str, batch: Sequence[Stored]) -> list[Read]:
    """Return what each message becomes; one that was handed back once, a job of another id."""
    found = [_read(broker, queue, stored) for stored in batch]
    gone = leaving.handed_back([job.id for job, _ in found])
    return [
        _read(broker, queue, stored, is_returning=True) if read[0].id in gone else read
        for stored, read in zip(batch, found, strict=True)
    ]


def _read(broker: LedgerBroker, queue: str, stored: Stored, *, is_returning: bool = False) -> Read:
    """Return the job that a message becomes, and how it ended if it failed for good."""
    try:
        theirs = Message.decode(stored.data)
        options = {
            name: value
            for name, value in theirs.options.items()
            if name not in ("redis_message_id", "traceback", "requeue_timestamp")
        }
        message: Message[Any] = replace(theirs, queue_name=queue, options=options)
        messages.validate(message)
        parent = ""
        if is_returning:
            # The ended row keeps the id; the same message becomes the same job each time.
            parent = message.message_id
            again = str(uuid5(NAMESPACE_OID, f"{parent}:{stored.id.hex()}"))
            message = replace(message, message_id=again)
        job = broker.new_job(message)
    except (DecodeError, InvalidMessage) as error:
        # DecodeError's own text contains the whole payload.
        reason = str(error) if isinstance(error, InvalidMessage) else "not a Dramatiq message"
        return unreadable(queue, stored.id.decode("utf-8", "backslashreplace"), stored.data, reason)
    except Exception as error:
        # Whatever else the bytes bring about, they are kept.
        logger.exception("Could not read message %r.", stored.id)
        reason = f"cannot be read: {error!r:.200}"
        return unreadable(queue, stored.id.decode("utf-8", "backslashreplace"), stored.data, reason)
    at = min(datetime.fromtimestamp(message.message_timestamp / 1000, UTC), clock.now())
    # Plain Dramatiq knows no unique keys; none of its messages may be left out for one.
    job = replace(job, enqueued_at=at, parent=parent, unique_key="", unique_until=None)
    if stored.dead_at_ms is None:
        return job, None
    return replace(job, due_at=None), _death(job, theirs, stored.dead_at_ms)


def _death(job: ledger.NewJob, message: Message[Any], dead_at_ms: float) -> ledger.Ending:
    at = datetime.fromtimestamp(dead_at_ms / 1000, UTC)
    trace = str(message.options.get("traceback") or "")
    # The copy that is kept is one attempt old; its traceback is that of the attempt before.
    attempt = int(message.options.get("retries") or 0) + 1
    last = _ERROR.match(trace.strip().rpartition("\n")[2])
    return ledger.Ending(
        job=job.id,
        dispatch=1,
        state=JobState.DEAD,
        outcome=Outcome.DEAD,
        attempt=attempt,
        started_at=at,
        finished_at=at,
        queue=job.queue,
        actor=job.actor,
        max_attempts=job.max_attempts,
        cause=DeathCause.ATTEMPTS_EXHAUSTED,
        error_class=last[1].rpartition(".")[2][:200] if last else "Unknown",
        error_message=(last[2] or "") if last else "It failed for good in plain Dramatiq.",
        traceback=trace,
    )


# --- Going ------------------------------------------------------------------------------
def preview_hand_back() -> HandedBack:
    """Count the open jobs; those that run are counted as held."""
    open_jobs = Job.objects.unfinished()
    running = open_jobs.filter(state=JobState.ACTIVE).count()
    return HandedBack(handed_back=open_jobs.count() - running, held=running)


def hand_back(
    plain: Plain,
    broker: LedgerBroker,
    *,
    by: "User | None" = None,
    reason: str = "",
    tell: Tell = lambda done, total: None,
) -> HandedBack:
    """Make messages of plain Dramatiq of all open jobs that none of our workers holds.

    Stop our workers and producers first. The jobs end as cancelled in the ledger and keep
    their ids; dead letters stay where they are.

    Args:
        plain: where to.
        broker: ours.
        by: who hands back; None for a program.
        reason: why, in that person's words.
        tell: told how many of how many jobs have been looked at.

    Raises:
        NotPermitted: `by` may not start a recovery.
        BrokerUnavailable: a server does not answer; call again.
    """
    audit.require(by, "run_recovery")
    # What an earlier call had ended and not pushed.
    number, unreadable = _push(plain), 0
    dispatcher.rescue(broker)
    jobs = Job.objects.filter(cancel_requested_at=None)
    open_states = (*TIMED, JobState.WAITING)
    ids = list(
        jobs.filter(state__in=open_states).order_by("due_at", "pk").values_list("pk", flat=True)
    )
    for start in range(0, len(ids), _BATCH):
        step = jobs.among(ids[start : start + _BATCH], *open_states)
        readable = [job for job in step if _opened(bytes(job.message)) is not None]
        unreadable += len(step) - len(readable)
        ledger_only = {job.pk: job.dispatch for job in readable if job.state in TIMED}
        waiting = jobs.among([job.pk for job in readable], JobState.WAITING)
        leaving.leave(ledger_only | _withdrawn(broker, waiting))
        number += _push(plain)
        tell(min(start + _BATCH, len(ids)), len(ids))
    held = Job.objects.unfinished().count() - unreadable
    result = HandedBack(number, held, unreadable)
    facts = {name: getattr(result, name) for name in HandedBack.__slots__}
    audit.record("hand back", "queue", ["*"], by=by, reason=reason, **facts)
    return result


def _withdrawn(broker: LedgerBroker, waiting: Any) -> dict[str, int]:
    """Return the dispatches of jobs that no worker of ours can start any more."""
    parcels = ledger.parcels_of(waiting)
    if not parcels:
        return {}
    taken = broker.transport.withdraw(parcels)
    # Never pushed, or lost: nobody can push them any more either.
    taken |= {parcel.id for parcel in broker.transport.missing(parcels, bar=True)}
    return {parcel.job: parcel.dispatch for parcel in parcels if parcel.id in taken}


def _push(plain: Plain) -> int:
    """Push the messages of jobs that were ended for it; return how many those were."""
    total = 0
    while jobs := leaving.left(min(_BATCH, plain.hands_back_at_once)):
        now = clock.now()
        by_name: dict[str, list[tuple[str, bytes]]] = {}
        for job in jobs:
            name = f"{job.queue}.DQ" if job.due_at > now else job.queue
            by_name.setdefault(name, []).append(_message(job, name))
        for name, found in by_name.items():
            plain.hand_back(name, found)
        leaving.arrived([job.job for job in jobs])
        total += len(jobs)
    return total


def _message(job: leaving.Left, name: str) -> tuple[str, bytes]:
    """Return (id, data) as plain Dramatiq would have stored it."""
    message = _opened(job.message)
    assert message is not None  # noqa: S101  # looked at before the job was ended
    # The same one each time, so that the server takes it once.
    message_id = str(uuid5(NAMESPACE_OID, f"{job.job}:{job.dispatch}"))
    options: dict[str, Any] = {"redis_message_id": message_id}
    if job.attempts:
        options["retries"] = job.attempts
    if name != job.queue:
        options["eta"] = int(job.due_at.timestamp() * 1000)
    return message_id, message.copy(queue_name=name, options=options).encode()


def _opened(data: bytes) -> Message[Any] | None:
    try:
        return payloads.open_message(Message.decode(data))
    except (Undecryptable, DecodeError):
        return None
