"""The order of middleware that keeps the guarantees, and the one that knows the outcome.

Dramatiq runs `before_*` hooks from first to last and `after_*` hooks from last to first.
Connections stands first and wraps everything; Bookkeeping is next: its `after` hook runs
when Retries and all others have decided, outside of the time limit. PolicyRetries and
PolicyTimeLimit stand last: their `after` hooks run first.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db import Error as DatabaseProblem
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    CurrentMessage,
    Interrupt,
    Middleware,
    MiddlewareError,
    Pipelines,
    Retries,
    ShutdownNotifications,
    SkipMessage,
    TimeLimit,
)
from dramatiq.results import Results

from . import clock, events, execution, payloads
from .apart import NotRun, run_apart
from .conf import require_valid, settings
from .exceptions import Cancelled
from .execution import Execution
from .masking import storable
from .messages import max_attempts
from .policies import Weight
from .results import LedgerBackend
from .retries import PolicyRetries
from .scoreboard import Scoreboard
from .states import DeathCause, JobState, Outcome
from .time_limits import PolicyTimeLimit, was_struck
from .work_queue import WorkQueue

logger = logging.getLogger(__name__)

_STANDARD: tuple[type[Middleware], ...] = (
    AgeLimit,
    ShutdownNotifications,
    Callbacks,
    Pipelines,
    CurrentMessage,
)


def build(extras: list[Middleware]) -> list[Middleware]:
    """Return the whole list of middleware for a broker.

    Args:
        extras: what the project names. Where it names one of Dramatiq's standard
            middleware, its options are taken over and its place is the built-in one.

    Raises:
        ConfigurationError: the setting QUEUEADMIN is wrong.
    """
    require_valid()
    named = {type(middleware): middleware for middleware in extras}
    retries = PolicyRetries()
    if Retries in named:
        theirs = named.pop(Retries)
        for option in ("max_retries", "min_backoff", "max_backoff", "retry_when"):
            setattr(retries, option, getattr(theirs, option))
    limit = PolicyTimeLimit()
    if TimeLimit in named:
        theirs = named.pop(TimeLimit)
        limit.time_limit = theirs.time_limit  # type: ignore[attr-defined]
    standard: list[Middleware] = [
        named.pop(kind) if kind in named else kind() for kind in _STANDARD
    ]
    results = named.pop(Results, None) or Results(backend=LedgerBackend(), store_results=True)
    own: list[Middleware] = [Connections(), Bookkeeping(), *_observers()]
    return [*own, *standard, results, *named.values(), retries, limit]


#: The options without which Dramatiq's own middleware does nothing for a job.
_ASKED_BY: dict[type[Middleware], tuple[str, ...]] = {
    AgeLimit: ("max_age",),
    ShutdownNotifications: ("notify_shutdown",),
    Callbacks: ("on_success", "on_failure"),
    Pipelines: ("pipe_target",),
}


def leaves_alone(middleware: Middleware, actor: Any) -> bool:
    """Return whether the middleware has nothing to do for an actor's messages without options."""
    asked_by = _ASKED_BY.get(type(middleware))
    return asked_by is not None and not any(
        actor.options.get(option) or getattr(middleware, option, None) for option in asked_by
    )


def _observers() -> list[Middleware]:
    """Return what tells others of runs, where it is installed; else nothing is imported.

    They stand next to Bookkeeping: what callbacks and pipelines enqueue is in their sight.
    """
    found: list[Middleware] = []
    if find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None:
        from .tracing import Tracing

        found.append(Tracing())
    if find_spec("sentry_sdk") is not None:
        from .sentry import Sentry

        found.append(Sentry())
    return found


class _Thread(threading.local):
    """What a thread knows of its connections.

    To ask Django for them costs a job more than anything else that is done before it.
    """

    def __init__(self) -> None:
        #: Those it has opened, by alias.
        self.opened: dict[str, BaseDatabaseWrapper] = {}
        #: Those whose transaction was open before the run that is going on.
        self.held: list[BaseDatabaseWrapper] = []


_thread = _Thread()
_INTERRUPTS = (Interrupt, Cancelled)


def _note_opened(connection: BaseDatabaseWrapper, **_: Any) -> None:
    # A copy that a job makes for itself has the same alias; whoever made it looks after it.
    if any(connection is own for own in connections.all(initialized_only=True)):
        _thread.opened[connection.alias] = connection


connection_created.connect(_note_opened, dispatch_uid="queueadmin.connections")


class Connections(Middleware):
    """Keeps a worker thread's database connections, and drops those that broke.

    It also drops those that a run has left inside a transaction. An interrupt strikes between
    any two instructions of Python, so also where the database has begun a transaction and Django
    has not noted it yet, or has noted it and the `with` that would end it is not entered yet.
    Nobody would ever end such a transaction: on SQLite it locks out every writer, the recorder
    of this process among them, for as long as the thread is idle; on PostgreSQL the thread's
    next jobs run in it, and count as completed without one of their rows.

    It looks at the end of a run, since the next one may be hours away, and as the outermost of
    all, since a project's own middleware may keep a transaction open around a job.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Check connections that met an error or have had their time."""
        held: list[BaseDatabaseWrapper] = []
        _thread.held = held
        for connection in _thread.opened.values():
            if connection.in_atomic_block:
                # That of a test which runs the jobs inside its own.
                held.append(connection)
            else:
                connection.close_if_unusable_or_obsolete()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Drop the connections that the run has left inside a transaction, or may have.

        After an interrupt that is every one of the thread: also one that was being opened, of
        which the thread does not know yet. No interrupt strikes here: the time limit's own hook
        has disarmed it before.
        """
        # An actor may have caught the interrupt, or failed by its consequences.
        if was_struck() or isinstance(exception, _INTERRUPTS):
            self._drop(connections.all(initialized_only=True), message, after_interrupt=True)
            return
        for connection in _thread.opened.values():
            if _is_in_transaction(connection):
                self._drop([connection], message, after_interrupt=False)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Do the same after an actor that has skipped its message itself."""
        self.after_process_message(broker, message)

    def before_worker_thread_shutdown(self, broker: Broker, thread: Any) -> None:
        """Close the thread's connections."""
        connections.close_all()

    def _drop(
        self,
        astray: Iterable[BaseDatabaseWrapper],
        message: MessageProxy,
        *,
        after_interrupt: bool,
    ) -> None:
        for connection in astray:
            is_open = connection.connection is not None or connection.in_atomic_block
            if not is_open or any(connection is held for held in _thread.held):
                continue
            if after_interrupt:
                logger.info(
                    "Job %s of %s was interrupted: closing its thread's connection to %s.",
                    message.message_id,
                    message.actor_name,
                    connection.alias,
                )
            else:
                logger.warning(
                    "%s left a transaction open on %s: what it wrote there is rolled back, "
                    "and the connection closed. job=%s",
                    message.actor_name,
                    connection.alias,
                    message.message_id,
                )
            _close(connection)


# Of libpq, for both drivers: no transaction, no connection.
_IDLE, _UNKNOWN = 0, 4


def _is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a transaction is open, by Django's account or by the driver's.

    Without a question to the database: every job pays for it.
    """
    driver: Any = connection.connection
    if connection.in_atomic_block:
        return True
    if driver is None:
        return False
    try:
        if connection.vendor == "sqlite":
            return bool(driver.in_transaction)
        if connection.vendor == "postgresql":
            return driver.info.transaction_status not in (_IDLE, _UNKNOWN)
    except connection.Database.Error:  # type: ignore[attr-defined]  # every backend has it
        pass  # closed without Django's knowledge, and its transaction with it
    return False


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close the connection, by which its transaction is rolled back, and forget its blocks.

    With a block on its books, Django would keep the closed connection until that block ends.
    """
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.needs_rollback = False
    connection.atomic_blocks, connection.savepoint_ids = [], []
    # The driver's connection is let go of in any case.
    with suppress(DatabaseProblem):
        connection.close()
    if connection.connection is not None:
        # SQLite in memory, as in a project's tests: Django keeps it, or all would be gone.
        connection.rollback()


class Bookkeeping(Middleware):
    """Knows what each thread runs, and states explicitly how every run ended."""

    @property
    def actor_options(self) -> set[str]:
        """Return the options actors may set, which no other middleware names."""
        return {
            "subject",
            "unique_key",
            "unique_for",
            "validate",
            "sensitive",
            "runbook",
            "replay_safe",
        }

    def after_declare_actor(self, broker: Broker, actor: Any) -> None:
        """Keep sensitive arguments out of what Dramatiq's actors log at level DEBUG."""
        actor.logger.addFilter(events.REDACTION)

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """Start what records and dispatches, before the first message is fetched.

        Raises:
            MiddlewareError: it cannot be started; Dramatiq would swallow any other error
                and run jobs whose outcomes nobody records.
        """
        # Imported here: these need models, and the broker is built before them.
        try:
            from .dispatcher import Dispatcher
            from .recorder import Recorder
            from .registry import Registration

            # Its threads and consumers are made after this hook and take it from the worker.
            worker.work_queue = broker.work_queue = WorkQueue(_weight, broker.mean_ms)
            if broker.scoreboard is None:
                broker.scoreboard = Scoreboard.in_memory(worker.worker_threads)
            broker.recorder = Recorder(
                broker,
                Registration(
                    broker, threads=worker.worker_threads, queues=worker.consumer_whitelist
                ),
            )
            broker.recorder.start()
            broker.dispatcher = Dispatcher(broker)
            broker.dispatcher.start()
        except Exception as error:
            raise MiddlewareError(f"The worker cannot keep its ledger: {error!r}") from error

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Start nothing more, and let the consumers give back at once what is not started.

        Dramatiq would wait with it until the last running job has ended. This thread has the
        time limit of the shutdown to keep and asks no server.
        """
        broker.work_queue.close()
        for consumer in list(broker.transport_consumers):
            consumer.wake.set()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Record what is still to be recorded."""
        for run in list(broker.recorder.running.values()):
            # The time to stop is up; its thread ends with the process.
            broker.recorder.give_back(run)
        broker.dispatcher.stop()
        broker.recorder.stop()
        broker.recorder = broker.scoreboard = None

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Begin the run."""
        run = Execution(
            job=message.message_id,
            dispatch=message.dispatch,
            attempt=int(message.options.get("retries") or 0) + 1,
            queue=message.queue_name,
            actor=message.actor_name,
            started_at=clock.now(),
            started=time.perf_counter(),
            is_sensitive=payloads.is_sensitive(message._message, broker.actors),
            redact=payloads.Redactor(message._message),
            parcel_id=message.parcel_id,
            is_starting=True,
        )
        execution.enter(run)
        heart = broker.heart
        is_doubtful = (
            message.parcel_id.endswith("?")
            or broker.controls.must_claim
            or message.era != broker.era
            or (heart is not None and not heart.is_fresh())
        )
        if broker.recorder is not None:
            broker.recorder.running[id(run)] = run
            if not is_doubtful:
                broker.scoreboard.enter(run.job, run.dispatch)
        events.started(run)
        if broker.controls.of(run.queue).is_paused or broker.is_quiet:
            # Prefetched before the pause.
            run.returned = True
            raise SkipMessage(f"queue {run.queue} is paused, or this process is quiet")
        if broker.controls.is_cancelling(run.job, run.dispatch):
            # Fetched before the cancel.
            run.cancelled = True
            raise SkipMessage(f"job {run.job} is cancelled")
        if is_doubtful or message.era != broker.era or (heart is not None and not heart.is_fresh()):
            self._claim(broker, message, run)
        run.is_starting = False

    def _claim(self, broker: Any, message: Any, run: Execution) -> None:
        """Ask the ledger before a start that may not be the only one.

        A message that was dispatched again after a loss or a death, or fetched before this
        process was frozen or cut off, or before the server lost its memory.

        Raises:
            SkipMessage: another dispatch of the job counts, or the ledger is away.
        """
        from . import ledger  # needs models; see above

        try:
            crashes = ledger.claim(run.job, run.dispatch, worker=_worker(broker))
        except (DatabaseError, InterfaceError) as error:
            # It may have been claimed all the same; the ending gives it back in any case.
            run.returned = True
            raise SkipMessage(f"the ledger is away: {error}") from error
        if crashes is None:
            message.is_void = True
            raise SkipMessage(f"dispatch {run.dispatch} of job {run.job} does not count any more")
        if crashes >= ledger.APART_FROM and broker.modules:
            self._run_apart(broker, message, run)
        # Only now: a job that is still asking, or is about to run apart, does not run here.
        # Should a neighbour kill the process meanwhile, that is no crash of this job's.
        if broker.scoreboard is not None:
            broker.scoreboard.enter(run.job, run.dispatch)

    def _run_apart(self, broker: Any, message: Any, run: Execution) -> None:
        """Run a job that has killed processes where it can kill nobody else's.

        Raises:
            SkipMessage: it has run, or it is to be dispatched again.
        """
        if broker.scoreboard is not None:
            # It became doubtful after it was noted. If this process dies now, it was not by it.
            broker.scoreboard.leave()
        limit = next(found for found in broker.middleware if isinstance(found, PolicyTimeLimit))
        limit_seconds = limit.limit_ms(broker, message) / 1000
        try:
            message.ending = run_apart(broker, run, limit_seconds=limit_seconds)
            message.is_void = message.ending is None
        except (DatabaseError, InterfaceError, NotRun) as error:
            broker.logger.warning("Job %s is given back: %s", run.job, error)
            run.returned = True
        raise SkipMessage(f"job {run.job} has run in a process of its own")

    def after_process_message(
        self,
        broker: Any,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """State how the run ended."""
        run = execution.current()
        if run is None:
            return
        try:
            message.ending = conclude(broker, message, run, exception)
            if message.ending.attempt:
                broker.tallies.note(
                    run.queue,
                    message.ending.error_class,
                    message.ending.error_message,
                    is_permanent=run.cause is DeathCause.REJECTED,
                )
        finally:
            # Dramatiq logs what is raised here and goes on.
            self._leave(broker, run)
        _tell(broker, message)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        """State that the job was skipped: too old when it failed by that, else on purpose."""
        run = execution.current()
        if run is None:
            return
        if message.is_void or message.ending is not None:
            # Others have counted, or the process it ran in has said how it ended.
            self._leave(broker, run)
            return
        run.attempt = 0
        ending = conclude(broker, message, run, None)
        if run.returned or run.cancelled:
            pass
        elif message.failed:
            ending.state, ending.outcome = JobState.DEAD, Outcome.DEAD
            ending.cause = DeathCause.EXPIRED
            ending.error_class = "MessageExpired"
            ending.error_message = "The message was older than its max_age."
        else:
            ending.state, ending.outcome = JobState.CANCELLED, Outcome.CANCELLED
        message.ending = ending
        self._leave(broker, run)
        _tell(broker, message)

    def _leave(self, broker: Any, run: Execution) -> None:
        execution.leave()
        if broker.recorder is not None:
            broker.recorder.running.pop(id(run), None)
            broker.scoreboard.leave()


def _worker(broker: Any) -> str:
    host_and_pid: str = broker.transport.worker_id.rsplit(":", 1)[0]
    return host_and_pid


def _weight(queue: str) -> int:
    policy = settings.policy(queue)
    return policy.weight if policy is not None else Weight.MEDIUM


def _tell(broker: Any, message: Any) -> None:
    """Log how the run ended; in a worker its recorder does it, for a whole batch together."""
    if not events.is_told(message.ending):
        return
    actor = broker.actors.get(message.actor_name)
    most = max_attempts(message._message, actor, broker.default_max_retries)
    if broker.recorder is None:
        events.ended(message.ending, most)
    else:
        # Without the message: thousands of these may wait for their commit.
        message.tell = partial(events.ended, message.ending, most)


def conclude(broker: Any, message: Any, run: Execution, exception: BaseException | None) -> Any:
    """Return the ending of a run, after every other middleware has had its say."""
    from .ledger import Ending  # needs models; see above

    duration_ms = (time.perf_counter() - run.started) * 1000
    finished_at = clock.now()
    actor = broker.actors.get(message.actor_name)
    ending = Ending(
        job=run.job,
        dispatch=run.dispatch,
        state=JobState.COMPLETED,
        outcome=Outcome.COMPLETED,
        attempt=run.attempt,
        started_at=run.started_at,
        finished_at=finished_at,
        duration_ms=round(duration_ms, 3),
        queue=run.queue,
        actor=message.actor_name if actor is None else actor.actor_name,
        worker=_worker(broker),
        release=settings.RELEASE,
        result=run.result,
        follow_ups=run.follow_ups,
    )
    if exception is not None:
        _describe(ending, run, exception)
    if run.returned:
        ending.state, ending.outcome, ending.attempt = JobState.WAITING, Outcome.RETURNED, 0
        ending.due_at = finished_at
    elif run.cancelled:
        ending.state, ending.outcome, ending.result = JobState.CANCELLED, Outcome.CANCELLED, None
    elif message.failed:
        ending.state, ending.outcome = JobState.DEAD, Outcome.DEAD
        ending.cause = run.cause or DeathCause.REJECTED
    elif run.retry_delay_ms is not None:
        ending.outcome = Outcome.RETRYING
        ending.delay_ms = run.retry_delay_ms
        ending.due_at = finished_at + timedelta(milliseconds=run.retry_delay_ms)
        # Due at once: the recorder pushes it with its commit, no dispatcher needed.
        ending.state = JobState.RETRYING if run.retry_delay_ms else JobState.WAITING
    elif exception is not None:
        # Nobody has decided: what should have has failed itself, and said so in the log.
        ending.state, ending.outcome = JobState.DEAD, Outcome.DEAD
        ending.cause = DeathCause.ATTEMPTS_EXHAUSTED
    return ending


def _describe(ending: Any, run: Execution, exception: BaseException) -> None:
    """Say what was raised; an exception whose own code fails is recorded like any other."""
    ending.error_class = type(exception).__qualname__[:200]
    try:
        text = str(exception)
    except Exception as problem:
        text = f"(its text cannot be read: {type(problem).__qualname__})"
    ending.error_message = storable(run.redact(text), 5_000)
    ending.traceback = storable(run.trace(exception))
