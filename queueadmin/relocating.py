"""Moves all open jobs from one message server to another while workers of both run.

Only what waits lies in a message server; scheduled jobs and retries are in the ledger. Each
message is withdrawn from the old server in one step, its job gets a new dispatch number, and
that is pushed to the new server and looked for there. What a worker of the old server holds,
it finishes.

Two fleets on two servers may both believe that a message is lost, because it lies in the
other one. So while this goes on no dispatcher dispatches again what it misses; the mover
does. And every worker of either claims a job in the ledger before it starts it
(`Controls.must_claim`), also what it fetched until then: of all copies one starts.

A move that is interrupted at any point is carried on by the next call: what was withdrawn and
not pushed waits in the ledger and is found missing.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from . import audit, clock, dispatcher, leases, ledger
from .brokers.base import LedgerBroker
from .brokers.redis import RedisTransport
from .brokers.transport import ServerSettling, Transport
from .conf import settings
from .consumer import split
from .controls import RELOCATION, SEEN_SECONDS
from .exceptions import ConfigurationError, QueueadminError
from .models import Job
from .states import JobState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

# Keeps each statement short.
_BATCH = 500
# Renewed each second. An interrupted move leaves the workers cautious for so long.
_LEASE = timedelta(hours=1)
_LOOK_SECONDS = 1.0
_SETTLING_SECONDS = 15.0

Tell = Callable[[int, int], None]
T = TypeVar("T")


class AnotherRelocation(QueueadminError):
    """Jobs are being moved from another server already."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """How far a move has come."""

    #: Jobs that waited in the old server and arrived in the new one.
    moved: int = 0
    #: Jobs that were pushed and not found; the dispatcher pushes them again.
    unverified: int = 0
    #: Jobs in the hands of workers of the old server.
    held: int = 0
    #: Workers of the old server that are alive.
    workers: int = 0
    is_finished: bool = False


def transport_of(url: str, namespace: str = "") -> Transport:
    """Return a connection to a message server.

    Args:
        url: its address, as in the settings.
        namespace: prefix of the names there; the provider's default where it is empty.

    Raises:
        ConfigurationError: no provider has such addresses.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        return RedisTransport(url, namespace or "dramatiq")
    if scheme in ("amqp", "amqps"):
        # Only with this provider its client has to be installed.
        from .brokers.rabbitmq import RabbitMQTransport

        return RabbitMQTransport(url, namespace or "queueadmin")
    raise ConfigurationError(
        f"No message server has an address that begins with {scheme!r}; it must be redis://, "
        "rediss://, unix://, amqp:// or amqps://."
    )


def relocate(
    source: Transport,
    broker: LedgerBroker,
    *,
    name: str,
    by: "User | None" = None,
    reason: str = "",
    patience: float = 600.0,
    tell: Tell = lambda done, total: None,
) -> Relocation:
    """Move what waits, until no worker of the old server is alive.

    Start it before the first process works on the new server.

    Args:
        source: the old server.
        broker: the broker on the new one.
        name: what the old server is called in the audit, without a password. A call with
            the same name carries on what an earlier one left.
        by: who moves; None for a program.
        reason: why, in that person's words.
        patience: seconds to go on for while workers of the old server are alive.
        tell: told how many of how many jobs have been looked at in a sweep.

    Raises:
        NotPermitted: `by` may not start a recovery.
        AnotherRelocation: jobs are being moved from a server of another name.
        BrokerUnavailable: one of the servers does not answer; call again.
    """
    audit.require(by, "run_recovery")
    _require_different(source, broker.transport)
    holder = hashlib.sha256(name.encode()).hexdigest()[:40]
    if not leases.acquire(RELOCATION, holder, _LEASE):
        raise AnotherRelocation(
            "Jobs are being moved from another server. Finish that move first; one that was "
            "given up is forgotten an hour after its end."
        )
    audit.record("migrate broker", "queue", [name], by=by, reason=reason)
    deadline = time.monotonic() + max(patience, 0)
    time.sleep(SEEN_SECONDS)  # until every worker knows that it has to claim what it starts
    moved = unverified = 0
    while True:
        leases.acquire(RELOCATION, holder, _LEASE)
        arrived, doubtful = _sweep(source, broker, tell)
        moved, unverified = moved + arrived, doubtful
        rescued = _rescue(source, broker)
        held = _held(source)
        is_over = not (arrived or doubtful or rescued or held)
        if is_over or time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)  # paces the looks
    if is_over:
        # What an earlier call had withdrawn and not pushed; and since nothing is elsewhere any
        # more, whatever should be here and is not.
        moved += _settled(lambda: dispatcher.redispatch(broker, ends_move=True))
        leases.release(RELOCATION, holder)
    return Relocation(moved, unverified, sum(held.values()), len(held), is_over)


def _require_different(source: Transport, target: Transport) -> None:
    """Refuse what needs no move.

    Raises:
        ConfigurationError: it says what to do instead.
    """
    if type(source) is not type(target):
        return
    if not isinstance(source, RedisTransport):
        raise ConfigurationError(
            "Two RabbitMQ servers share what the ledger knows of them, so nothing has to be "
            "moved: change RABBITMQ_URL, restart all processes, and the workers dispatch to the "
            "new server what it does not have. `queueadmin recover --dry-run` counts what is left."
        )


def preview(source: Transport) -> Relocation:
    """Count what would be moved, and what workers of the old server hold."""
    found = sum(len(_present(source, parcels)) for parcels, _, _ in _batches())
    held = _held(source)
    return Relocation(moved=found, held=sum(held.values()), workers=len(held))


def _batches() -> Iterator[tuple[list[ledger.Parcel], int, int]]:
    """Yield all that waits, in the order in which it became due, with how far that is."""
    # What is younger may be on its way to either server.
    before = clock.now() - dispatcher.UNCONFIRMED_AFTER
    jobs = Job.objects.filter(cancel_requested_at=None, due_at__lt=before)
    waiting = jobs.filter(state=JobState.WAITING)
    ids = list(waiting.order_by("due_at", "pk").values_list("pk", flat=True))
    for start in range(0, len(ids), _BATCH):
        batch = jobs.among(ids[start : start + _BATCH], JobState.WAITING).order_by("due_at", "pk")
        yield ledger.parcels_of(batch), min(start + _BATCH, len(ids)), len(ids)


def _present(source: Transport, parcels: Sequence[ledger.Parcel]) -> list[ledger.Parcel]:
    missing = {parcel.id for parcel in _settled(lambda: source.missing(parcels))}
    return [parcel for parcel in parcels if parcel.id not in missing]


def _sweep(source: Transport, broker: LedgerBroker, tell: Tell) -> tuple[int, int]:
    """Move what waits in the old server now; return how many arrived, and how many may not."""
    arrived = doubtful = 0
    for parcels, done, total in _batches():
        if broker.transport.is_exact:
            # RabbitMQ lets go of whatever no worker holds, also of what is here already.
            # Whoever is late to push here is refused from now on.
            parcels = _settled(partial(broker.transport.missing, parcels, bar=True))
        taken = source.withdraw(parcels)
        again = _dispatch(parcel for parcel in parcels if parcel.id in taken)
        doubtful += len(_push(broker, again))
        arrived += len(again)
        tell(done, total)
    return arrived - doubtful, doubtful


def _dispatch(parcels: Iterable[ledger.Parcel]) -> list[ledger.Parcel]:
    """Give jobs their next number, and keep their order."""
    wanted = [parcel[:2] for parcel in parcels]
    raised = {parcel.job: parcel for parcel in ledger.rescue(wanted, [JobState.WAITING])}
    return [raised[job] for job, _ in wanted if job in raised]


def _push(broker: LedgerBroker, parcels: Sequence[ledger.Parcel]) -> set[str]:
    """Push, and look for what was pushed; return the jobs that are neither there nor over.

    RabbitMQ confirms each push when it is on its disk, and cannot be asked afterwards.
    """
    if not parcels:
        return set()
    broker.transport.push(parcels)
    if not broker.transport.is_exact:
        ledger.confirm(parcels)
        return set()
    missing = {parcel.id for parcel in _settled(lambda: broker.transport.missing(parcels))}
    ledger.confirm([parcel for parcel in parcels if parcel.id not in missing])
    number = {parcel.job: parcel.dispatch for parcel in parcels if parcel.id in missing}
    still = Job.objects.among(number, JobState.WAITING)
    return {job for job, at in still.values_list("pk", "dispatch") if at == number[job]}


def _rescue(source: Transport, broker: LedgerBroker) -> int:
    """Take over what dead workers of the old server held."""
    total = 0
    for worker_id in source.dead_workers(settings.HEARTBEAT_TIMEOUT_MS):
        held = source.held_by(worker_id)
        found = [ours for ids in held.values() for each in ids if (ours := split(each)) is not None]
        again = ledger.rescue(found)
        broker.transport.push(again)
        source.forget(worker_id, held)
        total += len(again)
    return total


def _held(source: Transport) -> dict[str, int]:
    """Return the workers of the old server that are alive, with how much each holds."""
    return {
        worker_id: sum(len(ids) for ids in source.held_by(worker_id).values())
        # Whoever is silent for no time at all is everybody.
        for worker_id in source.dead_workers(-1)
    }


def _settled(ask: Callable[[], T]) -> T:
    """Ask a server that may have begun to remember just now."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while True:
        try:
            return ask()
        except ServerSettling:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # paces the looks
