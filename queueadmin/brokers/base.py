"""What every broker of ours has in common: jobs go into the ledger first."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import dramatiq
from django.db import connection, connections, transaction
from dramatiq.broker import Consumer
from dramatiq.errors import QueueJoinTimeout
from dramatiq.message import Message
from dramatiq.middleware import Middleware, MiddlewareError
from dramatiq.results import Results

from .. import clock, execution, payloads
from ..conf import settings
from ..consumer import Hand, LedgerConsumer
from ..controls import Controls
from ..exceptions import InvalidMessage
from ..messages import max_attempts, unique_key, validate
from ..meters import Meters
from ..middleware import build, leaves_alone
from ..policies import MAX_DELAY_MS
from ..retries import PolicyRetries
from ..scoreboard import Scoreboard
from ..signatures import check_message
from ..states import UNFINISHED, Priority
from ..tallies import Tallies
from ..work_queue import WorkQueue
from .transport import BrokerUnavailable, Transport

if TYPE_CHECKING:
    # Types only. django-dramatiq builds the broker before the app registry is ready, so
    # models, and what imports them, are imported in the functions that need them.
    from ..dispatcher import Heart
    from ..ledger import NewJob, Parcel
    from ..recorder import Recorder

# A push that failed is not tried again by this process for so long; the ledger keeps the job.
_PUSH_PAUSE_SECONDS = 1.0
# What a queue's jobs are taken to last before any has run.
_FIRST_MEAN_MS = 50.0


class LedgerBroker(dramatiq.Broker):
    """A Dramatiq broker whose messages are rows of the ledger first.

    It builds its own middleware in the order that keeps the guarantees (see
    `queueadmin.middleware`); the `middleware` argument names extras only.
    """

    transport: Transport
    #: Asked for the actor of a message that this process does not know; they may import it.
    finders: ClassVar[list[Callable[[Message[Any]], object]]] = []

    def __init__(self, *, middleware: list[Middleware] | None = None) -> None:
        #: Set in worker processes, while a worker runs.
        self.recorder: Recorder | None = None
        #: Where consumers put what the worker's threads are to run; set like the recorder.
        self.work_queue: WorkQueue
        self.transport_consumers: set[LedgerConsumer] = set()
        self.controls = Controls()
        #: How attempts of queues with a circuit breaker went lately in this process.
        self.tallies = Tallies(lambda queue: self.controls.of(queue).stage)
        #: What this process measures of itself.
        self.meters = Meters()
        #: True while staff want this process to start nothing.
        self.is_quiet = False
        #: Ends this process as SIGTERM does; set where there is a process to end.
        self.request_stop: Callable[[], None] | None = None
        #: The modules of the actors, to start processes that know them; set in worker
        #: processes of a supervisor.
        self.modules: list[str] = []
        #: What each thread runs, for the supervisor; set in worker processes.
        self.scoreboard: Scoreboard | None = None
        #: Set in worker processes.
        self.heart: Heart | None = None
        #: What this process holds, per queue.
        self.hands: dict[str, Hand] = {}
        self._mean_ms: dict[str, float] = {}
        self._pushing_paused_until = 0.0
        self._insert_thread: ThreadPoolExecutor | None = None
        self._hooked: list[Middleware] = []
        self._retries: PolicyRetries | None = None
        self._hooks: dict[tuple[str, str, Any], list[Callable[..., Any]]] = {}
        super().__init__(middleware=build(middleware or []))
        self.queues: set[str] = set()

    # --- Middleware -----------------------------------------------------------------
    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the middleware that does something before `signal`, from first to last.

        Dramatiq's own calls every one of them, twelve here and twice for each job, of which
        most do nothing.
        """
        for hook in self._hooks_of("before_", signal, args):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in %r.", hook, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the middleware that does something after `signal`, from last to first."""
        for hook in self._hooks_of("after_", signal, args):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                self.logger.critical("Unexpected failure in %r.", hook, exc_info=True)

    def _hooks_of(self, when: str, signal: str, args: Any) -> list[Callable[..., Any]]:
        self._notice_changes()
        # Whose messages set no options, and so ask for nothing but what the actor does.
        actor = None
        if signal == "process_message" and not args[0].options:
            actor = self.actors.get(args[0].actor_name)
        hooks = self._hooks.get((when, signal, actor))
        if hooks is None:
            hooks = self._hooks[when, signal, actor] = self._find_hooks(when, signal, actor)
        return hooks

    def _notice_changes(self) -> None:
        """Forget what is known of the middleware when tests or projects change the list in place."""
        if self.middleware != self._hooked:
            self._hooked, self._hooks = self.middleware.copy(), {}
            found = (each for each in self.middleware if isinstance(each, PolicyRetries))
            self._retries = next(found, None)

    def _find_hooks(self, when: str, signal: str, actor: Any) -> list[Callable[..., Any]]:
        name = when + signal
        nothing = getattr(Middleware, name, None)
        hooks = [
            getattr(each, name)
            for each in self._hooked
            # A replaced method of one instance counts, too.
            if (getattr(type(each), name, None) is not nothing or name in vars(each))
            and (actor is None or not leaves_alone(each, actor))
        ]
        return hooks if when == "before_" else hooks[::-1]

    # --- Enqueue --------------------------------------------------------------------
    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Add the job to the ledger on the current connection; push it after commit.

        Args:
            message: what to run.
            delay: milliseconds to wait first, of any length; `eta` in the message's
                options (milliseconds since 1970) means the same.

        Returns:
            The message; where another job holds its unique key, with the id of that job.

        Raises:
            InvalidMessage: the message cannot be stored or run; it says why.
        """
        validate(message)
        if delay is not None and not 0 <= delay <= MAX_DELAY_MS * 10:
            raise InvalidMessage(f"delay must be 0 to 10 years, not {delay!r} ms.", field="delay")
        if delay:
            message = message.copy(options={"eta": clock.now_ms() + delay})
        run = execution.current()
        if run is None or not run.finishing:
            # A follow-up goes through in any case: it would be lost in a hook whose errors
            # Dramatiq swallows, while a job that fails with wrong arguments is seen.
            check_message(message, self.actors)
        self.emit_before("enqueue", message, delay)
        job = self.new_job(message)
        if run is not None and run.finishing:
            # Pipelines, callbacks and group members: committed with this job's outcome.
            run.follow_ups.append(job)
        else:
            message = _held(message, self._add([job]))
        self.emit_after("enqueue", message, delay)
        return message

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Add many jobs with one insert and push them in one pipeline after commit.

        All or none: a message that cannot be stored is found before the first insert. Of
        messages with the same unique key the first one counts, and is returned for all.

        Raises:
            InvalidMessage: a message cannot be stored or run; it says which and why.
        """
        messages = list(messages)
        jobs = []
        for position, message in enumerate(messages):
            try:
                validate(message)
                check_message(message, self.actors)
                # Before it is encoded: hooks may add to its options.
                self.emit_before("enqueue", message, None)
                jobs.append(self.new_job(message))
            except InvalidMessage as error:
                raise InvalidMessage(f"Message {position}: {error}", field=error.field) from error
        held = self._add(jobs)
        messages = [_held(message, held) for message in messages]
        for message in messages:
            self.emit_after("enqueue", message, None)
        return messages

    def new_job(self, message: Message[Any]) -> "NewJob":
        """Return the row that the message becomes.

        Raises:
            InvalidMessage: it cannot be stored.
        """
        from ..ledger import NewJob

        run = execution.current()
        # What a job leaves behind, as results and callbacks, is as sensitive as itself.
        inherits = run is not None and run.finishing and run.is_sensitive
        try:
            data = payloads.encode(message, self.actors, inherits=inherits)
        except InvalidMessage:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMessage(
                f"The arguments of {message.actor_name} cannot be encoded: {error}.", field="args"
            ) from error
        if len(data) > settings.MAX_MESSAGE_BYTES:
            raise InvalidMessage(
                f"The message for {message.actor_name} has {len(data)} bytes; "
                f"at most {settings.MAX_MESSAGE_BYTES} are allowed. Store the data and send its id.",
                field="args",
            )
        at = clock.now()
        eta = message.options.get("eta")
        due = datetime.fromtimestamp(eta / 1000, UTC) if eta is not None else None
        actor = self.actors.get(message.actor_name)
        key, period_ms = unique_key(message, actor)
        return NewJob(
            id=message.message_id,
            queue=message.queue_name,
            actor=message.actor_name,
            message=data,
            is_sealed=payloads.is_sealed(data),
            enqueued_at=at,
            due_at=due if due is not None and due > at else None,
            priority=Priority.BY_NAME[message.options.get("priority", "normal")],
            max_attempts=max_attempts(message, actor, self.default_max_retries),
            subject=message.options.get("subject", ""),
            parent=run.job if run is not None else "",
            group=(message.options.get("group_completion_uuid") or "")[:64],
            unique_key=key,
            unique_until=at + timedelta(milliseconds=period_ms) if period_ms else None,
        )

    def _add(self, jobs: "list[NewJob]") -> dict[str, str]:
        """Insert the jobs and push them after commit, also from a running event loop.

        Returns:
            Jobs that were left out, each with the job that holds its unique key.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._insert(jobs)
        # Django refuses the database in a thread with a running loop. No transaction can
        # be open there that the insert would have to join, so another thread may do it.
        if self._insert_thread is None:
            self._insert_thread = ThreadPoolExecutor(1, thread_name_prefix="queueadmin-enqueue")
        return self._insert_thread.submit(self._insert_elsewhere, jobs).result()

    def _insert_elsewhere(self, jobs: "list[NewJob]") -> dict[str, str]:
        # No request begins or ends in that thread, so nobody else looks after its connection.
        connection.close_if_unusable_or_obsolete()
        return self._insert(jobs)

    def _insert(self, jobs: "list[NewJob]") -> dict[str, str]:
        from .. import ledger, outbox

        # Either all are added or none, and no key without its job. One statement is that by
        # itself, and the savepoint it would be put in costs as much again.
        is_many = len(jobs) > ledger.INSERT_BATCH or any(job.unique_key for job in jobs)
        with transaction.atomic() if is_many else nullcontext():
            added = ledger.add(jobs)
        parcels = [
            ledger.Parcel(job.id, 1, job.queue, job.priority, job.message)
            for job in jobs
            if job.id in added.new and job.due_at is None
        ]
        if parcels:
            outbox.add(self, parcels)
        return added.held

    def push(self, parcels: "Sequence[Parcel]", *, wait: bool = True) -> bool:
        """Push committed jobs; return whether the server took them.

        Never raises for a server that does not answer: the request that enqueued must
        not fail, and the dispatcher pushes what never arrived.

        Args:
            parcels: what to push.
            wait: for the server's answer; without it True means only that nothing is known
                to be wrong.
        """
        if time.monotonic() < self._pushing_paused_until:
            return False
        try:
            if wait:
                self.transport.push(parcels)
            else:
                self.transport.send(parcels)
        except BrokerUnavailable as error:
            self._pushing_paused_until = time.monotonic() + _PUSH_PAUSE_SECONDS
            self.logger.warning(
                "Broker unavailable (%s); %d jobs wait in the ledger.", error, len(parcels)
            )
            return False
        return True

    def require_recorder(self) -> "Recorder":
        """Return the recorder of the running worker.

        Raises:
            RuntimeError: no worker was started in this process.
        """
        if self.recorder is None:
            raise RuntimeError("Outcomes are recorded in worker processes only.")
        return self.recorder

    @property
    def era(self) -> int:
        """Count how often this process may have lost what it held without noticing."""
        return self.controls.era + (self.heart.era if self.heart is not None else 0)

    def hand(self, queue_name: str) -> Hand:
        """Return what this process holds of the queue."""
        return self.hands.setdefault(queue_name, Hand())

    def knows(self, message: Message[Any]) -> bool:
        """Return whether there is an actor for the message, looking for it where others may."""
        if message.actor_name in self.actors:
            return True
        for find in self.finders:
            try:
                find(message)
            except Exception:
                # Boundary: whatever a module does as it is imported, the message is kept.
                self.logger.exception("Could not look for the actor %r.", message.actor_name)
        return message.actor_name in self.actors

    # --- Run times ------------------------------------------------------------------
    def mean_ms(self, queue_name: str) -> float:
        """Return how long jobs of the queue ran lately in this process, in milliseconds."""
        return self._mean_ms.get(queue_name, _FIRST_MEAN_MS)

    def note_run(self, queue_name: str, duration_ms: float) -> None:
        """Count a run into the mean of its queue."""
        # No lock: a lost update of the mean is harmless.
        before = self._mean_ms.get(queue_name, _FIRST_MEAN_MS)
        self._mean_ms[queue_name] = before + (duration_ms - before) * 0.05

    # --- Queues ---------------------------------------------------------------------
    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; there are no delay queues, the ledger knows what is due."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """Return the names of all declared queues."""
        return self.queues.copy()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a consumer of the queue; `timeout` is in milliseconds."""
        return LedgerConsumer(self, queue_name, threads=prefetch, timeout_ms=timeout)

    def flush(self, queue_name: str) -> None:
        """Cancel every unfinished job of the queue that no worker holds."""
        from .. import ledger

        ledger.cancel_queue(queue_name)
        self.transport.purge(queue_name)

    def flush_all(self) -> None:
        """Cancel every unfinished job of all declared queues that no worker holds."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 100, timeout: int | None = None) -> None:
        """Wait until no job of the queue is unfinished, scheduled ones included.

        Args:
            queue_name: the queue.
            interval: milliseconds between looks.
            timeout: milliseconds to wait at most.

        Raises:
            QueueJoinTimeout: the time is up.
        """
        from ..models import Job

        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while Job.objects.filter(queue=queue_name, state__in=UNFINISHED).exists():
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(interval / 1000)  # how often to look

    def get_results_backend(self) -> Any:
        """Return the result backend; the ledger's own unless the project names another."""
        for middleware in self.middleware:
            if isinstance(middleware, Results):
                return middleware.backend
        raise RuntimeError("The broker has no Results middleware.")

    @property
    def default_max_retries(self) -> int | None:
        """How often an actor retries whose queue has no policy."""
        self._notice_changes()
        return 20 if self._retries is None else self._retries.max_retries

    def close(self) -> None:
        """Close the connections to the server, and to the database those of a thread of ours."""
        if self._insert_thread is not None:
            self._insert_thread.submit(connections.close_all).result()
            self._insert_thread.shutdown()
            self._insert_thread = None
        self.transport.close()


def _held(message: Message[Any], held: dict[str, str]) -> Message[Any]:
    """Return the message with the id of the job that holds its unique key, if another does."""
    holder = held.get(message.message_id)
    return message if holder is None else message.copy(message_id=holder)
