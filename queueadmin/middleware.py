"""The order of middleware that keeps the guarantees, and the one that knows the outcome.

Dramatiq runs `before_*` hooks from first to last and `after_*` hooks from last to first.
Connections stands first and wraps everything; Bookkeeping is next: its `after` hook runs
when Retries and all others have decided, outside of the time limit. PolicyRetries and
PolicyTimeLimit stand last: their `after` hooks run first.
"""

import time
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import Any

from django.db import DatabaseError, InterfaceError
from dramatiq.broker import Broker
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    CurrentMessage,
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
from .connections import Connections
from .execution import Execution
from .masking import storable
from .messages import max_attempts
from .policies import Weight
from .results import LedgerBackend
from .retries import PolicyRetries
from .scoreboard import Scoreboard
from .states import DeathCause, JobState, Outcome
from .time_limits import PolicyTimeLimit
from .work_queue import WorkQueue

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
        if broker.recorder is None:
            return  # stopped twice
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
