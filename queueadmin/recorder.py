"""Commits how runs ended, many at a time, and only then lets the broker go of them.

One thread per worker process. Worker threads hand over through a SimpleQueue, which an
interrupt cannot break half-way, and never wait. The batch is whatever gathered while the
last commit ran: a single job when idle, hundreds under load.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection
from django.db import Error as DatabaseProblem
from dramatiq.message import Message

from . import clock, ledger, logs, payloads
from .brokers.transport import BrokerUnavailable
from .conf import settings
from .consumer import Delivery, split
from .exceptions import Undecryptable
from .execution import Execution
from .masking import storable
from .registry import Registration
from .states import DeathCause, JobState, Outcome

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)

# More rows per commit gain nothing measurable and make a replay dearer.
_BATCH = 500
# So many outcomes may wait for their commit before nothing more is fetched, and so few before
# it goes on. They are what runs again if the process is killed, and what it holds in memory:
# about a second's work where jobs take no time at all, which would leave any number behind; jobs
# of a millisecond never come near. With much less, threads and recorder fight for the
# interpreter all the time: with half of it 20,000 jobs cost Python a third more.
_MOST_WAITING, _FEW_WAITING = 8_000, 500
# A run that lasts longer is shown as active; shorter ones are not worth a write.
_ACTIVE_AFTER_SECONDS = 1.0
_RETRY_SECONDS = 0.5
# How long an outcome is left alone whose row somebody else holds locked.
_ASIDE_SECONDS = 2.0
# How long one whose values no column takes, until somebody has mended the table.
_REFUSED_SECONDS = 60.0
# With so many left alone it is not their rows, and nothing more is fetched.
_MOST_ASIDE = 100
_UNSTORABLE = "The error text could not be stored; see the worker's log."
# How long a message for an actor this release does not know is left alone between looks.
_PARK = timedelta(seconds=15)


@dataclass(slots=True)
class _Entry:
    """An ending, or a job to adopt, and the broker's message it settles."""

    queue: str
    parcel_id: str
    ending: ledger.Ending | None = None
    adopted: ledger.NewJob | None = None
    #: A row that has to exist before the ending can be recorded.
    record: ledger.NewJob | None = None
    #: Logs how the run ended.
    tell: Callable[[], None] | None = None
    #: The ledger will have it in no form.
    is_refused: bool = False


class Recorder:
    """Records endings of one worker process; see the module's text."""

    def __init__(self, broker: "LedgerBroker", registration: Registration) -> None:
        self.broker = broker
        self._registration = registration
        #: What this process runs now, by identity.
        self.running: dict[int, Execution] = {}
        #: False while the ledger cannot be written: consumers stop fetching.
        self.is_healthy = True
        self._inbox: SimpleQueue[_Entry | None] = SimpleQueue()
        #: Of consumers that fetch nothing until fewer outcomes wait.
        self._held_back: SimpleQueue[threading.Event] = SimpleQueue()
        self._is_behind = False
        self._unsettled: list[tuple[dict[str, list[str]], list[ledger.Parcel]]] = []
        #: Outcomes whose rows somebody else holds locked.
        self._aside: list[_Entry] = []
        self._aside_at = 0.0
        # The runs themselves: the number of one that has ended may be that of the next.
        self._shown_active: set[Execution] = set()
        self._shown_progress: dict[Execution, tuple[int, int | None, str]] = {}
        self._next_look = 0.0
        #: How many outcomes have been committed.
        self.recorded = 0
        self._thread = threading.Thread(target=self._run, name="queueadmin-recorder", daemon=True)

    @property
    def threads(self) -> list[threading.Thread]:
        """What has to run for outcomes to be recorded."""
        return [self._thread]

    def start(self) -> None:
        """Start recording."""
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Record what was handed over so far, waiting at most `timeout` seconds."""
        self._inbox.put(None)
        self._thread.join(timeout)

    # --- Handing over, from any thread ------------------------------------------------
    def has_room(self, wake: threading.Event) -> bool:
        """Return whether more may be fetched; if not, `wake` is set as soon as it may be.

        Asked again after the event is left here: whatever the recorder took out before that is
        seen then, and after whatever it takes out later it finds the event.
        """
        if not self._is_behind and self._inbox.qsize() < _MOST_WAITING:
            return True
        self._is_behind = True
        self._held_back.put(wake)
        return self._inbox.qsize() < _FEW_WAITING

    def put(self, delivery: Delivery) -> None:
        """Take over a finished delivery."""
        ending = None if delivery.is_void else delivery.ending or interrupted(delivery)
        entry = _Entry(delivery.queue_name, delivery.parcel_id, ending, tell=delivery.tell)
        self._inbox.put(entry)

    def give_back(self, run: Execution) -> None:
        """Dispatch a run again that this process will not finish; it costs no attempt.

        If its thread reports an outcome all the same, the first of the two counts.
        """
        logger.warning("Job %s is still running; it runs again elsewhere.", run.job)
        at = clock.now()
        ending = ledger.Ending(
            job=run.job,
            dispatch=run.dispatch,
            state=JobState.WAITING,
            outcome=Outcome.RETURNED,
            attempt=0,
            started_at=at,
            finished_at=at,
            due_at=at,
            queue=run.queue,
            actor=run.actor,
        )
        self._inbox.put(_Entry(run.queue, run.parcel_id, ending))

    def park(self, delivery: Delivery) -> None:
        """Put off a job whose actor this release does not know; bury it after the grace time."""
        ending = _put_off(delivery, DeathCause.UNKNOWN_ACTOR)
        known = ", ".join(sorted(self.broker.actors)[:20])
        ending.error_class = "ActorNotFound"
        ending.error_message = (
            f"No worker knows the actor {delivery.actor_name!r}. Known here: {known}."
        )
        self._inbox.put(_Entry(delivery.queue_name, delivery.parcel_id, ending))

    def refuse(self, delivery: Delivery, error: Undecryptable) -> None:
        """Put off a job whose key this process does not have; bury it after the grace time."""
        ending = _put_off(delivery, DeathCause.UNDECODABLE)
        ending.error_class = type(error).__qualname__
        ending.error_message = str(error)
        logger.error("Job %s not run: %s", delivery.message_id, error)
        self._inbox.put(_Entry(delivery.queue_name, delivery.parcel_id, ending))

    def adopt(self, queue: str, parcel_id: str, message: Message[Any]) -> None:
        """Take a message that plain Dramatiq enqueued into the ledger, to be dispatched by it."""
        theirs = {k: v for k, v in message.options.items() if k != "redis_message_id"}
        fields = {**message.asdict(), "options": theirs}
        data = payloads.encode(Message(**fields), self.broker.actors)
        job = ledger.NewJob(
            id=message.message_id,
            queue=queue,
            actor=message.actor_name,
            message=data,
            is_sealed=payloads.is_sealed(data),
            enqueued_at=clock.now(),
        )
        self._inbox.put(_Entry(queue, parcel_id, adopted=job))

    def quarantine(self, queue: str, parcel_id: str, data: bytes, reason: str) -> None:
        """Make a dead letter of a message that cannot be run, with its bytes."""
        record, ending = unreadable(queue, parcel_id, data, reason)
        self._inbox.put(_Entry(queue, parcel_id, ending, record=record))

    # --- The thread -------------------------------------------------------------------
    def _run(self) -> None:
        is_open = True
        while is_open:
            entries, is_open = self._gather()
            self._let_fetch()
            if entries:
                # Before the commit: who sees the outcome in the ledger finds its line, too.
                _tell(entries)
                self._record(entries, is_last=not is_open)
            self._record_aside(is_last=not is_open)
            self._settle_unsettled()
            self._show()
        try:
            self._registration.leave()
        except DatabaseError as error:
            logger.warning("Could not leave the registry of workers: %s", error)
        connection.close()

    def _gather(self) -> tuple[list[_Entry], bool]:
        """Wait for an entry and take all that came with it; False when told to stop."""
        entries: list[_Entry] = []
        try:
            entry = self._inbox.get(timeout=_RETRY_SECONDS)
            while entry is not None:
                entries.append(entry)
                if len(entries) >= _BATCH:
                    return entries, True
                entry = self._inbox.get_nowait()
        except Empty:
            return entries, True
        return entries, False

    def _let_fetch(self) -> None:
        """Wake the consumers that were held back, once fewer outcomes wait."""
        if self._is_behind and self._inbox.qsize() < _FEW_WAITING:
            self._is_behind = False
            while not self._held_back.empty():
                self._held_back.get_nowait().set()

    def _record(self, entries: list[_Entry], *, is_last: bool, patience: int = 3) -> None:
        """Commit a batch, however long the database is away, then settle it.

        Args:
            entries: the batch.
            is_last: the process ends; give up at some time.
            patience: after how many failures a database that does answer is not waited for
                any more: somebody holds a row of the batch.
        """
        failures = 0
        deadline = time.monotonic() + 20
        while True:
            try:
                committed = self._commit(entries)
                break
            except (DataError, IntegrityError):
                self._split(entries, is_last=is_last)
                return
            except DatabaseProblem as error:
                # Away, overloaded, deadlocked, read-only after a failover, or not migrated yet:
                # the same batch again, nothing is lost.
                self.is_healthy = False
                logger.warning("Ledger unavailable (%s); %d outcomes wait.", error, len(entries))
                connection.close()
                if is_last and time.monotonic() > deadline:
                    # The messages stay in this worker's hands and are rescued from there.
                    logger.error("Gave up on %d outcomes at shutdown.", len(entries))
                    return
                failures += 1
                if failures >= patience and self._ledger_answers():
                    self._put_aside(entries, is_last=is_last)
                    return
                time.sleep(_RETRY_SECONDS)  # paces the retries
            except Exception:
                # Also what is no DatabaseError: a driver cannot send every text. Without
                # this thread no outcome of this process would be recorded any more.
                self._split(entries, is_last=is_last)
                return
        self.is_healthy = True
        self.recorded += len(entries)
        ended = [entry.ending.finished_at for entry in entries if entry.ending is not None]
        lag = (clock.now() - min(ended)).total_seconds() if ended else 0.0
        self.broker.meters.batch(len(entries), lag)
        done: dict[str, list[str]] = defaultdict(list)
        for entry in entries:
            done[entry.queue].append(entry.parcel_id)
        self._unsettled.append((done, committed.parcels))

    def _commit(self, entries: list[_Entry]) -> ledger.Committed:
        adopted = [entry.adopted for entry in entries if entry.adopted is not None]
        inserted = ledger.insert(adopted) if adopted else set()
        records = [entry.record for entry in entries if entry.record is not None]
        unknown = ledger.insert(records) if records else set()
        for entry in entries:
            if entry.record is not None and entry.ending is not None and entry.record.id in unknown:
                # The row was made just now, whatever number the message claimed.
                entry.ending.dispatch = 1
        endings = [entry.ending for entry in entries if entry.ending is not None]
        committed = ledger.commit(endings) if endings else ledger.Committed(set(), [], [])
        for ending in committed.stale:
            logger.warning(
                "Stale outcome %s of job %s dispatch %d ignored.",
                ending.outcome,
                ending.job,
                ending.dispatch,
            )
        committed.parcels.extend(
            ledger.Parcel(job.id, 1, job.queue, job.priority, job.message)
            for job in adopted
            if job.id in inserted
        )
        return committed

    def _ledger_answers(self) -> bool:
        """Return whether the database may be written to, by a change of no row."""
        try:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE queueadmin_worker SET id = id WHERE id = ''")
        except (DatabaseError, InterfaceError):
            connection.close()
            return False
        return True

    def _put_aside(self, entries: list[_Entry], *, is_last: bool) -> None:
        """Find the row that somebody holds locked; the others are not held up by it."""
        if len(entries) > 1:
            middle = len(entries) // 2
            self._record(entries[:middle], is_last=is_last, patience=1)
            self._record(entries[middle:], is_last=is_last, patience=1)
            return
        logger.warning("The outcome of message %r is put aside.", entries[0].parcel_id)
        self._aside.extend(entries)
        if not entries[0].is_refused:
            # It does not wait as long as one before it that no column takes.
            self._aside_at = min(self._aside_at, time.monotonic() + _ASIDE_SECONDS)
        # More than somebody holds locked: outcomes that nobody can record are not to be added to.
        self.is_healthy = len(self._aside) < _MOST_ASIDE

    def _record_aside(self, *, is_last: bool) -> None:
        """Try again what was put aside."""
        if self._aside and (is_last or time.monotonic() >= self._aside_at):
            entries, self._aside = self._aside, []
            is_hopeless = all(entry.is_refused for entry in entries)
            pause = _REFUSED_SECONDS if is_hopeless else _ASIDE_SECONDS
            self._aside_at = time.monotonic() + pause
            self._record(entries, is_last=is_last, patience=1)

    def _split(self, entries: list[_Entry], *, is_last: bool) -> None:
        """Find the row that the database refuses, so that the others are not held up."""
        if len(entries) > 1:
            middle = len(entries) // 2
            self._record(entries[:middle], is_last=is_last)
            self._record(entries[middle:], is_last=is_last)
            return
        (entry,) = entries
        ending = entry.ending
        if entry.is_refused or ending is None:
            # Let go of, the message would be nobody's, and its job would stand still.
            if not entry.is_refused:
                logger.exception("The ledger refuses message %r.", entry.parcel_id)
            entry.is_refused = True
            self._put_aside(entries, is_last=is_last)
            return
        logger.exception("The ledger refuses the outcome of message %r.", entry.parcel_id)
        if ending.error_message != _UNSTORABLE:
            # What may be refused is text of the job's own; its outcome is not.
            ending.traceback, ending.result = "", None
            ending.error_class = storable(ending.error_class, 200)
            ending.error_message = _UNSTORABLE
            self._record(entries, is_last=is_last)
        elif ending.follow_ups:
            # Dropped in silence, the rest of a pipeline would be lost without anybody's notice.
            ending.follow_ups = []
            ending.state, ending.outcome = JobState.DEAD, Outcome.DEAD
            ending.cause = DeathCause.REJECTED
            ending.error_class = "FollowUpsRefused"
            self._record(entries, is_last=is_last)
        else:
            entry.is_refused = True
            self._put_aside(entries, is_last=is_last)

    def _settle_unsettled(self) -> None:
        """Let the broker go of what is committed; keep it for later while the broker is away."""
        while self._unsettled:
            done, parcels = self._unsettled[0]
            try:
                self.broker.transport.settle(done, parcels)
            except BrokerUnavailable as error:
                logger.warning("Broker unavailable (%s); settling later.", error)
                # What was to be pushed may have been, and may have run and gone since: pushed
                # again it would run twice. It waits in the ledger, and the dispatcher asks where
                # it is before it gives it another number.
                self._unsettled[0] = (done, [])
                time.sleep(_RETRY_SECONDS)  # paces the retries
                return
            for queue, parcel_ids in done.items():
                self.broker.hand(queue).drop(parcel_ids)
            del self._unsettled[0]

    def _show(self) -> None:
        """Once a second show in the ledger what this process does."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _ACTIVE_AFTER_SECONDS
        try:
            self._show_active()
            self._show_progress()
            self._registration.beat()
        except Exception as error:
            # For people only; whatever it is, outcomes go on being recorded.
            logger.warning("Could not show what this process does: %s", error)
            connection.close()

    def _show_progress(self) -> None:
        """Show how far runs have come that said so since the last look."""
        shown = self._shown_progress
        self._shown_progress = {}
        changed = []
        for run in list(self.running.values()):
            if run.progress is not None:
                self._shown_progress[run] = run.progress
                if shown.get(run) != run.progress:
                    done, total, text = run.progress
                    changed.append((run.job, run.dispatch, done, total, storable(text, 200)))
        if changed:
            ledger.show_progress(changed)

    def _show_active(self) -> None:
        """Show what has been running for a moment as active.

        Not what may still have to claim its job: that needs to find it waiting, or its message
        would be thrown away as one that does not count, and nobody would run it.
        """
        before = time.perf_counter() - _ACTIVE_AFTER_SECONDS
        running = set(self.running.values())
        self._shown_active &= running
        long = {
            run
            for run in running - self._shown_active
            if run.started < before and not run.is_starting
        }
        if not long:
            return
        worker = self.broker.transport.worker_id.rsplit(":", 1)[0]
        ledger.mark_active([(run.job, run.dispatch, run.started_at, worker) for run in long])
        self._shown_active |= long


def _tell(entries: list[_Entry]) -> None:
    """Log how the runs of a batch ended."""
    with logs.together():
        for entry in entries:
            try:
                if entry.tell is not None:
                    entry.tell()
            except Exception:
                # A filter or a formatter of the project's own; outcomes go on being recorded.
                logger.exception("Could not log how message %r ended.", entry.parcel_id)


def _ending(delivery: Delivery, state: JobState, outcome: Outcome) -> ledger.Ending:
    at = clock.now()
    return ledger.Ending(
        job=delivery.message_id,
        dispatch=delivery.dispatch,
        state=state,
        outcome=outcome,
        attempt=0,
        started_at=at,
        finished_at=at,
        queue=delivery.queue_name,
        actor=delivery.actor_name,
    )


def _put_off(delivery: Delivery, cause: DeathCause) -> ledger.Ending:
    """Return the ending that lets other workers look, or the last one after the grace time.

    The time counts from the first worker that did not know what to do: what was scheduled for
    next week is not older for it, and a job that is requeued gets it anew.
    """
    at = clock.now()
    grace = timedelta(seconds=settings.UNKNOWN_ACTOR_GRACE)
    since_ms = at.timestamp() * 1000 if delivery.parked_ms is None else delivery.parked_ms
    if at.timestamp() * 1000 - since_ms >= grace.total_seconds() * 1000:
        ending = _ending(delivery, JobState.DEAD, Outcome.DEAD)
        ending.cause = cause
    else:
        ending = _ending(delivery, JobState.SCHEDULED, Outcome.RETURNED)
        ending.due_at = at + min(_PARK, grace)
    return ending


def interrupted(delivery: Delivery) -> ledger.Ending:
    """Return the ending of a run of which nobody said how it ended: dispatch it again."""
    ending = _ending(delivery, JobState.WAITING, Outcome.RETURNED)
    ending.due_at = ending.finished_at
    return ending


def unreadable(
    queue: str, parcel_id: str, data: bytes, reason: str
) -> tuple[ledger.NewJob, ledger.Ending]:
    """Return the row and the ending that make a dead letter of a message nobody can run."""
    at = clock.now()
    ours = split(parcel_id)
    # A stable id: the same message quarantined twice is one dead letter.
    name = f"{queue}:{parcel_id}".encode(errors="backslashreplace").decode()
    job, dispatch = ours or (str(uuid5(NAMESPACE_OID, name)), 1)
    record = ledger.NewJob(id=job, queue=queue, actor="(unreadable)", message=data, enqueued_at=at)
    ending = ledger.Ending(
        job=job,
        dispatch=dispatch,
        state=JobState.DEAD,
        outcome=Outcome.DEAD,
        attempt=0,
        started_at=at,
        finished_at=at,
        queue=queue,
        actor="(unreadable)",
        cause=DeathCause.UNDECODABLE,
        error_class="InvalidMessage",
        error_message=storable(reason, 5_000),
        raw=data,
    )
    return record, ending
