"""Brings due jobs to the broker, and back what went missing on the way.

A thread in every worker process; the one that holds the lease does the work. Every duty
can be repeated and interrupted at any point: what one run leaves, the next one finds in
the ledger.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, connection, transaction

from . import clock, events, leases, ledger, registry
from .brokers.transport import BrokerUnavailable, ServerSettling
from .conf import settings
from .consumer import split
from .controls import REFRESH_SECONDS, RELOCATION
from .models import Job
from .states import RUNNABLE, JobState, Priority

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_LEASE = timedelta(seconds=3)
_RENEW_SECONDS = 1.0
_HEARTBEAT_SECONDS = 1.0
# A pause between two beats that a busy machine does not explain: this process was frozen.
_LATE_SECONDS = 4.0
_SYNCHRONISE_SECONDS = 60.0
# A job this long in the ledger and not known to the broker is looked for there; before,
# the process that enqueued it is most likely just about to push it.
UNCONFIRMED_AFTER = timedelta(seconds=3)
# Keeps each statement, and so each row lock, short.
_BATCH = 1000

# Of each queue so many of the next messages are looked at; the others when it is their turn.
_MOST_LISTED = 20_000

# What is long takes turns with the others: so long for it, then they are asked again. The lease
# outlasts it by far.
_LONG_SECONDS = 0.5

#: Something to be done again and again. One that may be long returns an iterator, of which each
#: step is done for itself.
Duty = Callable[["LedgerBroker"], object]


def promote(broker: "LedgerBroker") -> int:
    """Push what has become due; return how many jobs that were."""
    total = 0
    while parcels := ledger.promote_due(clock.now(), _BATCH):
        total += len(parcels)
        if not broker.push(parcels) or len(parcels) < _BATCH:
            break
    return total


def confirm(broker: "LedgerBroker") -> int:
    """Look in the broker for jobs not known to be there, and push those that are missing.

    A job whose message is gone is either lost or has just been recorded: its outcome is
    committed before its message leaves. So the ledger is asked again, by the conditional
    UPDATE that gives the job a new dispatch number, and only then it is pushed. A
    producer that was frozen before its own push may still push the old number; what that
    run reports is stale.

    While jobs move from another server, only the mover says what is missing: each server
    would miss what lies in the other one, and every new number leaves a copy behind.
    """
    parcels = ledger.unconfirmed(clock.now() - UNCONFIRMED_AFTER, _BATCH)
    if not parcels or leases.is_held(RELOCATION):
        return 0
    try:
        missing = broker.transport.missing(parcels, bar=True)
    except ServerSettling:
        return 0
    lost = {parcel.id for parcel in missing}
    ledger.confirm([parcel for parcel in parcels if parcel.id not in lost])
    return _dispatch_again(broker, missing, JobState.WAITING)


def _dispatch_again(
    broker: "LedgerBroker", missing: Sequence[ledger.Parcel], state: JobState
) -> int:
    again = ledger.rescue([(parcel.job, parcel.dispatch) for parcel in missing], [state])
    if again and broker.push(again):
        ledger.confirm(again)
    return len(again)


def refill(broker: "LedgerBroker") -> Iterator[int]:
    """Dispatch again at once what a flushed or restarted server has forgotten.

    Step by step: what is due, and what dead workers held, does not wait until a million jobs are
    there again. One that is not carried on is begun anew by whoever leads then; a server that is
    emptied meanwhile is another one, whose turn comes afterwards.

    Yields:
        How many jobs those of a step were.
    """
    if leases.is_held(RELOCATION) or not broker.transport.needs_refill():
        return
    total = 0
    try:
        for found in _redispatching(broker, dry_run=False, ends_move=False):
            total += found
            yield found
            if leases.is_held(RELOCATION):
                # Since the last step; from now on only the mover says what is missing.
                return
    except ServerSettling:
        return
    broker.transport.refilled()
    if total:
        logger.warning("The broker had lost its memory; %d jobs were dispatched again.", total)


def redispatch(broker: "LedgerBroker", *, dry_run: bool = False, ends_move: bool = False) -> int:
    """Dispatch again what waits or runs by the ledger and is unknown to the broker.

    All that waits is looked at, also what was confirmed once: a flushed server forgets.
    A job recorded between the look and the UPDATE is left alone by it, because outcomes
    are committed before messages leave the broker; one that was claimed in between,
    because it does not wait any more.

    Args:
        broker: whose server is asked.
        dry_run: only count.
        ends_move: jobs have moved here from another server, where nothing waits any more.
            Without it nothing is dispatched while jobs move, see `confirm`.

    Raises:
        ServerSettling: the workers have not had the time to say what they hold.
    """
    if not ends_move and leases.is_held(RELOCATION):
        return 0
    return sum(_redispatching(broker, dry_run=dry_run, ends_move=ends_move))


def _redispatching(broker: "LedgerBroker", *, dry_run: bool, ends_move: bool) -> Iterator[int]:
    before = clock.now() - UNCONFIRMED_AFTER
    # What runs may be in the hands of workers of the other server.
    for state in (JobState.WAITING,) if ends_move else (JobState.WAITING, JobState.ACTIVE):
        for parcels in ledger.in_state(state, before, _BATCH):
            missing = broker.transport.missing(parcels, bar=not dry_run)
            if not dry_run:
                _dispatch_again(broker, missing, state)
            yield len(missing)


def close(broker: "LedgerBroker", *, dry_run: bool = False) -> int:
    """Take messages out of the broker that will never count; return how many there are.

    For instance of a server that came back with an old snapshot: they would be run again, for
    nothing. What is over by the ledger stays so, since every further run has another number;
    and what a worker holds meanwhile is left to it.
    """
    total = 0
    for queue in sorted(broker.get_declared_queues()):
        ids = broker.transport.listed(queue, _MOST_LISTED)
        for start in range(0, len(ids), _BATCH):
            found = {each: ours for each in ids[start : start + _BATCH] if (ours := split(each))}
            over = ledger.over(found.values())
            parcels = [
                ledger.Parcel(*ours, queue, Priority.NORMAL, b"", each.endswith("?"))
                for each, ours in found.items()
                if ours in over
            ]
            if dry_run:
                # The id of a message that was withdrawn is listed until its turn comes.
                total += len(parcels) - len(broker.transport.missing(parcels))
            else:
                total += len(broker.transport.withdraw(parcels))
    return total


def restore(broker: "LedgerBroker") -> int:
    """Tell a server that has lost its memory what this process holds; return how much.

    What the ledger has dispatched again already is left out: this process's copy will be
    refused when it claims it.
    """
    held: set[str] = set()
    slots: list[str] = []
    for queue, hand in list(broker.hands.items()):
        with hand.lock:
            held |= hand.held
            if broker.controls.of(queue).concurrency is not None:
                slots += hand.unrun
    ids = sorted({found[0] for parcel_id in held if (found := split(parcel_id))})
    total = 0
    for start in range(0, len(ids), _BATCH):
        jobs = Job.objects.among(ids[start : start + _BATCH], *RUNNABLE)
        mine = [parcel for parcel in ledger.parcels_of(jobs) if parcel.id in held]
        broker.transport.restore(mine, slots)
        total += len(mine)
    return total


def withdraw(broker: "LedgerBroker", parcels: Sequence[ledger.Parcel]) -> int:
    """Take cancelled jobs out of the broker; return how many are certain not to start now.

    The broker lets go of a message in one step and only while no worker holds it, so what
    it gave back nobody can start. What a worker holds, that worker settles: it looks for
    cancels before each start and interrupts what runs.
    """
    taken = broker.transport.withdraw(parcels)
    return _cancel([parcel for parcel in parcels if parcel.id in taken])


def cancel(broker: "LedgerBroker") -> int:
    """Carry on with cancels that could not be settled when they were asked for.

    For instance because the broker was away, or the process died between the broker and
    the ledger. A message that is gone some time after the request was lost, or withdrawn
    by somebody who died then; in either case nobody has it.
    """
    parcels = ledger.cancelling(_BATCH)
    if not parcels:
        return 0
    number = withdraw(broker, parcels)
    old = ledger.cancelling(_BATCH, before=clock.now() - UNCONFIRMED_AFTER)
    return number + _cancel(broker.transport.missing(old, bar=True) if old else [])


def _cancel(parcels: Sequence[ledger.Parcel]) -> int:
    if not parcels:
        return 0
    with transaction.atomic():
        ended = ledger.cancel_withdrawn(parcels)
    events.cancelled(ended)
    return len(ended)


def rescue(broker: "LedgerBroker") -> int:
    """Take back what dead workers held; return how many jobs that were.

    Nobody is judged right after an outage: when no heartbeat could be sent, everybody
    looks dead, and what they run would be started a second time.
    """
    if broker.heart is not None and not broker.heart.is_steady(settings.HEARTBEAT_TIMEOUT_MS):
        return 0
    total = 0
    for worker_id in broker.transport.dead_workers(settings.HEARTBEAT_TIMEOUT_MS):
        held = broker.transport.held_by(worker_id)
        _give_back_foreign(broker, worker_id, held)
        dispatches = [
            found for ids in held.values() for parcel_id in ids if (found := split(parcel_id))
        ]
        again = ledger.rescue(dispatches)
        broker.push(again)
        # Last: until here a repeat of this duty finds the same messages again.
        broker.transport.forget(worker_id, held)
        if worker_id != broker.transport.worker_id:
            logger.warning("Worker %s is gone; %d of its jobs go on.", worker_id, len(again))
        total += len(again)
    return total


def _give_back_foreign(broker: "LedgerBroker", worker_id: str, held: dict[str, list[str]]) -> None:
    """Put back what the ledger does not know, such as a message of plain Dramatiq.

    Nothing but the message itself can bring it back; whoever fetches it adopts it or makes
    a dead letter of it. Nobody fetches from the delay queues of plain Dramatiq; what its
    workers held of those stays for `queueadmin.backlog`.
    """
    for queue, ids in held.items():
        foreign = [parcel_id for parcel_id in ids if split(parcel_id) is None]
        if foreign and not queue.endswith(".DQ"):
            back = [(parcel_id, Priority.NORMAL) for parcel_id in foreign]
            broker.transport.give_back(queue, back, worker_id)
        if foreign:
            held[queue] = [parcel_id for parcel_id in ids if parcel_id not in set(foreign)]


class Heart:
    """Beats for this process, and knows for how long without a pause."""

    def __init__(self, broker: "LedgerBroker") -> None:
        self._broker = broker
        self._last = float("-inf")
        # A process that has just begun may judge; only a gap makes it wait.
        self._steady_since = float("-inf")
        self._mark = ""
        self._fresh_until = float("-inf")
        #: Raised whenever others may have taken what this process holds: after a silence
        #: that was too long, and when the server has lost its memory.
        self.era = 0
        #: True until the server knows again what this process holds.
        self.must_restore = False

    def is_fresh(self) -> bool:
        """Return whether nobody can have declared this process dead yet."""
        return time.monotonic() < self._fresh_until

    def beat(self) -> None:
        """Send a heartbeat; one that fails, or comes late, begins a new count."""
        try:
            if self._broker.scoreboard is not None:
                self._broker.scoreboard.sign(self._broker.transport.worker_id)
            sent_at = time.monotonic()
            mark = self._broker.transport.heartbeat()
        except BrokerUnavailable as error:
            logger.warning("No heartbeat: %s", error)
            self._steady_since = float("inf")
            return
        is_emptied = self._mark not in ("", mark)
        # Before the freshness: a thread that sees this process fresh sees the new era.
        if is_emptied or (self._mark and sent_at > self._fresh_until):
            self.era += 1
        if is_emptied:
            logger.warning("The broker has lost its memory; telling it what this process holds.")
            self.must_restore = True
        self._mark = mark
        self._fresh_until = sent_at + settings.HEARTBEAT_TIMEOUT_MS / 2000
        now = time.monotonic()
        is_late = now - self._last > _LATE_SECONDS and self._last > float("-inf")
        if is_late or self._steady_since == float("inf"):
            self._steady_since = now
        self._last = now

    def is_steady(self, timeout_ms: int) -> bool:
        """Return whether all living workers have had `timeout_ms` to show that they live."""
        now = time.monotonic()
        is_current = now - self._last <= _LATE_SECONDS
        return is_current and now - self._steady_since > timeout_ms / 1000


class Dispatcher:
    """Runs the duties while it leads; every process beats its own heart and listens."""

    #: (how often in seconds, duty); the rooms above may add theirs.
    duties: list[tuple[float, Duty]] = [
        (0.0, promote),
        (1.0, confirm),
        (1.0, rescue),
        (1.0, refill),
        (60.0, registry.tidy),
        (1.0, cancel),
    ]

    def __init__(self, broker: "LedgerBroker") -> None:
        self.broker = broker
        self.heart = broker.heart = Heart(broker)
        self._stopping = threading.Event()
        #: What is left of duties that have begun, by their place in the list.
        self._begun: dict[int, Iterator[object]] = {}
        self.threads = [
            threading.Thread(target=target, name=f"queueadmin-{name}", daemon=True)
            for name, target in (
                ("dispatcher", self._dispatch),
                ("controls", self._watch_controls),
                ("heartbeat", self._beat),
                ("wake-up", self._listen),
            )
        ]

    def start(self) -> None:
        """Start dispatching; the first heartbeat is sent before anything is fetched.

        So is the clock measured, because this host's may be wrong and a retry would be due
        too late, and the controls read, that a paused queue stays paused over a restart.
        """
        self.heart.beat()
        try:
            clock.synchronise()
            self.broker.controls.refresh()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Nothing is fetched until the ledger answers: %s", error)
            connection.close()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and let another process lead at once."""
        self._stopping.set()
        for thread in self.threads:
            thread.join(2.0)

    def _dispatch(self) -> None:
        holder = self.broker.transport.worker_id
        due: dict[int, float] = {}
        renew_at = synchronise_at = 0.0
        leads = False
        while not self._stopping.wait(_TICK_SECONDS):
            now = time.monotonic()
            try:
                if self.heart.must_restore:
                    # Cleared before: a server emptied meanwhile is told again.
                    self.heart.must_restore = False
                    self._restore()
                if now >= synchronise_at:
                    clock.synchronise()
                    synchronise_at = now + _SYNCHRONISE_SECONDS
                if now >= renew_at:
                    leads = leases.acquire("dispatcher", holder, _LEASE)
                    renew_at = now + _RENEW_SECONDS
                if not leads:
                    # Whoever leads begins anew.
                    self._begun.clear()
                if leads:
                    self._run_duties(due)
            except (DatabaseError, InterfaceError) as error:
                logger.warning("Dispatcher waits for the ledger: %s", error)
                connection.close()
                leads, renew_at = False, 0.0
            except BrokerUnavailable as error:
                logger.warning("Dispatcher waits for the broker: %s", error)
        if leads:
            try:
                leases.release("dispatcher", holder)
            except (DatabaseError, InterfaceError) as error:
                logger.warning("Could not give the lease back: %s", error)
        connection.close()

    def _run_duties(self, due: dict[int, float]) -> None:
        for index, (every, duty) in enumerate(self.duties):
            if index in self._begun or time.monotonic() >= due.get(index, 0.0):
                begun = self._begun.pop(index, None)
                try:
                    result = duty(self.broker) if begun is None else begun
                    if isinstance(result, Iterator) and not _is_over(result):
                        self._begun[index] = result
                except (DatabaseError, InterfaceError, BrokerUnavailable):
                    raise
                except Exception:
                    # A flaw of one duty must not end the process, nor the other duties.
                    logger.exception("Duty %s failed.", getattr(duty, "__name__", duty))
                due[index] = time.monotonic() + every

    def _restore(self) -> None:
        try:
            restore(self.broker)
        except (DatabaseError, InterfaceError, BrokerUnavailable):
            self.heart.must_restore = True
            raise

    def _watch_controls(self) -> None:
        """Read what staff have set; a thread of its own, because the duties may take long."""
        while not self._stopping.wait(REFRESH_SECONDS):
            try:
                if not self.broker.controls.is_known:
                    # The ledger was away at the start: first things first.
                    clock.synchronise()
                changed = self.broker.controls.refresh()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("Could not read what holds for the queues: %s", error)
                connection.close()
                continue
            for consumer in list(self.broker.transport_consumers):
                if consumer.queue_name in changed:
                    consumer.wake.set()
        connection.close()

    def _beat(self) -> None:
        # Idle and paused consumers send nothing, so that the process must.
        while not self._stopping.wait(_HEARTBEAT_SECONDS):
            self.heart.beat()
        # Some brokers keep heartbeats in the ledger.
        connection.close()

    def _listen(self) -> None:
        """Wake the consumers of queues that something was pushed to."""
        while not self._stopping.is_set():
            try:
                pushed = self.broker.transport.wait_for_push(0.5)
            except BrokerUnavailable:
                # Consumers look by themselves once a second meanwhile.
                self._stopping.wait(_HEARTBEAT_SECONDS)
                continue
            if pushed:
                for consumer in list(self.broker.transport_consumers):
                    if consumer.queue_name in pushed:
                        consumer.wake.set()


def _is_over(steps: Iterator[object]) -> bool:
    """Do steps until their time is up; return whether there are no more."""
    deadline = time.monotonic() + _LONG_SECONDS
    while time.monotonic() < deadline:
        try:
            next(steps)
        except StopIteration:
            return True
    return False
