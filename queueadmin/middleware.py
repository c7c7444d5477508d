"""The order of middleware that keeps the guarantees, and the one that knows the outcome.

Dramatiq runs `before_*` hooks from first to last and `after_*` hooks from last to first.
Connections stands first and wraps everything; Bookkeeping is next: its `after` hook runs
when Retries and all others have decided, outside of the time limit. PolicyRetries and
PolicyTimeLimit stand last: their `after` hooks run first.
"""

import time
import traceback
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import connections
from dramatiq.broker import Broker, MessageProxy
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
from .conf import require_valid, settings
from .execution import Execution
from .masking import storable
from .messages import max_attempts
from .policies import Weight
from .results import LedgerBackend
from .retries import PolicyRetries
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
    return [Connections(), Bookkeeping(), *standard, results, *named.values(), retries, limit]


class Connections(Middleware):
    """Keeps a worker thread's database connections, and drops those that broke."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Check connections that met an error or have had their time."""
        for connection in connections.all(initialized_only=True):
            # A transaction is open only where a test runs the jobs inside its own.
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()

    def before_worker_thread_shutdown(self, broker: Broker, thread: Any) -> None:
        """Close the thread's connections."""
        connections.close_all()


class Bookkeeping(Middleware):
    """Knows what each thread runs, and states explicitly how every run ended."""

    @property
    def actor_options(self) -> set[str]:
        """Return the options actors may set for the console."""
        return {"subject", "validate", "sensitive"}

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

            # Its threads and consumers are made after this hook and take it from the worker.
            worker.work_queue = WorkQueue(_weight, broker.mean_ms)
            broker.recorder = Recorder(broker)
            broker.recorder.start()
            broker.dispatcher = Dispatcher(broker)
            broker.dispatcher.start()
        except Exception as error:
            raise MiddlewareError(f"The worker cannot keep its ledger: {error!r}") from error

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Give back at once what is not started; Dramatiq would run it to the end."""
        for consumer in list(broker.transport_consumers):
            consumer.stop_fetching()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Record what is still to be recorded."""
        broker.dispatcher.stop()
        broker.recorder.stop()
        broker.recorder = None

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
        )
        execution.enter(run)
        if broker.recorder is not None:
            broker.recorder.running[id(run)] = run
        events.started(run)
        if broker.controls.of(run.queue).is_paused:
            # Prefetched before the pause.
            run.returned = True
            raise SkipMessage(f"queue {run.queue} is paused")

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
        if run is not None:
            message.ending = conclude(broker, message, run, exception)
            self._leave(broker, run)
            events.ended(message.ending, partial(_max_attempts, broker, message))

    def after_skip_message(self, broker: Any, message: Any) -> None:
        """State that the job was skipped: too old when it failed by that, else on purpose."""
        run = execution.current()
        if run is None:
            return
        run.attempt = 0
        ending = conclude(broker, message, run, None)
        if run.returned:
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
        events.ended(ending, partial(_max_attempts, broker, message))

    def _leave(self, broker: Any, run: Execution) -> None:
        execution.leave()
        if broker.recorder is not None:
            broker.recorder.running.pop(id(run), None)


def _weight(queue: str) -> int:
    policy = settings.policy(queue)
    return policy.weight if policy is not None else Weight.MEDIUM


def _max_attempts(broker: Any, message: Any) -> int | None:
    actor = broker.actors.get(message.actor_name)
    return max_attempts(message._message, actor, broker.default_max_retries)


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
        worker=broker.transport.worker_id.rsplit(":", 1)[0],
        release=settings.RELEASE,
        result=run.result,
        follow_ups=run.follow_ups,
    )
    if exception is not None:
        ending.error_class = type(exception).__qualname__[:200]
        ending.error_message = storable(run.redact(str(exception)), 5_000)
        ending.traceback = storable(run.redact("".join(traceback.format_exception(exception))))
    if run.returned:
        ending.state, ending.outcome, ending.attempt = JobState.WAITING, Outcome.RETURNED, 0
        ending.due_at = finished_at
    elif message.failed:
        ending.state, ending.outcome = JobState.DEAD, Outcome.DEAD
        ending.cause = run.cause or DeathCause.REJECTED
    elif run.retry_delay_ms is not None:
        ending.outcome = Outcome.RETRYING
        ending.delay_ms = run.retry_delay_ms
        ending.due_at = finished_at + timedelta(milliseconds=run.retry_delay_ms)
        # Due at once: the recorder pushes it with its commit, no dispatcher needed.
        ending.state = JobState.RETRYING if run.retry_delay_ms else JobState.WAITING
    return ending
