"""Decides what follows a failure: another attempt, and when, or a dead letter."""

import time
import traceback
from collections.abc import Mapping
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.middleware import Retries, TimeLimitExceeded
from dramatiq.middleware.retries import DEFAULT_MAX_BACKOFF
from dramatiq.middleware.shutdown import Shutdown

from . import execution
from .conf import settings
from .exceptions import Cancelled, PermanentError, RetryAfter
from .messages import max_attempts, numbered_attempts
from .policies import MAX_DELAY_MS
from .states import DeathCause

_LONG_TRACE = 20_000


class PolicyRetries(Retries):
    """Dramatiq's Retries with the delays of the queue's policy, recorded instead of pushed.

    Everything Dramatiq's own middleware honours is honoured: `throws`, `retry_when`,
    `max_retries`, `min_backoff`, `max_backoff`, `on_retry_exhausted` and `Retry`, on the
    message, then the actor, then the queue's policy, then Dramatiq's defaults.
    """

    @property
    def actor_options(self) -> set[str]:
        """Return the options actors may set."""
        return set(super().actor_options)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note on the current execution how the failure is answered."""
        run = execution.current()
        if run is None or exception is None:
            return
        if isinstance(exception, Shutdown):
            run.returned = True
            return
        if isinstance(exception, Cancelled):
            run.cancelled = True
            return
        actor = broker.actors.get(message.actor_name)
        throws = message.options.get("throws") or (actor and actor.options.get("throws"))
        if isinstance(exception, PermanentError) or (throws and isinstance(exception, throws)):
            run.cause = DeathCause.REJECTED
            message.fail()
            return

        retries = run.attempt - 1
        message.options["retries"] = run.attempt
        message.options["traceback"] = _brief(run, exception)
        message.options["requeue_timestamp"] = int(time.time() * 1000)
        if self._is_exhausted(message, actor, retries, exception):
            run.cause = (
                DeathCause.TIME_LIMIT
                if isinstance(exception, TimeLimitExceeded)
                else DeathCause.ATTEMPTS_EXHAUSTED
            )
            message.fail()
            self._tell_exhausted(broker, message, actor, retries)
            return
        try:
            run.retry_delay_ms = self._delay_ms(message, actor, run.attempt, exception)
        except Exception:
            # Delays of another type than they must have, which nothing checks on an actor.
            self.logger.exception(
                "The delay of %s cannot be told; the default is taken.", message.actor_name
            )
            run.retry_delay_ms = self._default_delay_ms(run.attempt, {})

    def _is_exhausted(
        self, message: MessageProxy, actor: Any, retries: int, exception: BaseException
    ) -> bool:
        retry_when = actor.options.get("retry_when", self.retry_when) if actor else None
        if retry_when is not None:
            try:
                return not retry_when(retries, exception)
            except Exception:
                # The project's code, which may not have thought of this failure.
                self.logger.exception(
                    "`retry_when` of %s failed; its number of attempts decides instead.",
                    message.actor_name,
                )
                most = numbered_attempts(message._message, actor.options, self.max_retries)
                return most is not None and retries + 1 >= most
        most = max_attempts(message._message, actor, self.max_retries)
        return most is not None and retries + 1 >= most

    def _delay_ms(
        self, message: MessageProxy, actor: Any, attempt: int, exception: BaseException
    ) -> int:
        if isinstance(exception, RetryAfter):
            return _bounded(exception.delay_ms)
        if isinstance(exception, Retry) and exception.delay is not None:
            return _bounded(exception.delay)
        options = {**(actor.options if actor else {}), **message.options}
        policy = settings.policy(message.queue_name)
        if policy is not None and not {"min_backoff", "max_backoff"} & set(options):
            return policy.backoff.delay_ms(attempt)
        return self._default_delay_ms(attempt, options)

    def _default_delay_ms(self, attempt: int, options: Mapping[str, Any]) -> int:
        """Return the delay as plain Dramatiq has it, with its jitter."""
        least = options.get("min_backoff") or self.min_backoff
        most = min(options.get("max_backoff") or self.max_backoff, DEFAULT_MAX_BACKOFF)
        _, delay = compute_backoff(attempt - 1, factor=int(least), max_backoff=int(most))
        return int(delay)

    def _tell_exhausted(
        self, broker: Broker, message: MessageProxy, actor: Any, retries: int
    ) -> None:
        target = message.options.get("on_retry_exhausted") or (
            actor and actor.options.get("on_retry_exhausted")
        )
        if target:
            most = max_attempts(message._message, actor, self.max_retries)
            facts = {"retries": retries, "max_retries": None if most is None else most - 1}
            broker.get_actor(target).send(message.asdict(), facts)


def _brief(run: execution.Execution, exception: BaseException) -> str:
    """Return the stack as callbacks get it with the message, of no more than 30 frames if long."""
    text = run.trace(exception)
    if len(text) > _LONG_TRACE:
        text = run.redact("".join(traceback.format_exception(exception, limit=30)))
    return text


def _bounded(delay_ms: float) -> int:
    """Return whole milliseconds; what is no number is as long as any wait may be."""
    return int(max(0, min(MAX_DELAY_MS, delay_ms)))
