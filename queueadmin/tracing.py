"""Carries OpenTelemetry's trace context from where a job is enqueued to its attempts.

The context is an option of the message, so it stands in the ledger: retries, rescues and
requeues belong to the trace of the request that enqueued the job. Each attempt is a span of its
own. Without a tracer provider nothing is carried or measured. The middleware is in the list only
where `opentelemetry` is installed; this module is imported only then.
"""

import threading
import time
from collections.abc import Mapping
from contextvars import Token
from typing import Any, NamedTuple

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import execution
from .states import Outcome

#: The option that carries the context: the headers of W3C Trace Context. Baggage may be
#: anything, and is not kept.
OPTION = "trace"
_HEADERS = ("traceparent", "tracestate")
_LONGEST = 512
_PROPAGATOR = TraceContextTextMapPropagator()
# How soon a provider that a project sets up late is noticed: without one, OpenTelemetry looks
# into the environment each time it is asked, which costs a job more than all other hooks.
_LOOK_SECONDS = 1.0


class _Open(NamedTuple):
    span: trace.Span
    token: "Token[context.Context]"


class Tracing(Middleware):
    """Begins a span before each attempt and ends it when the others have decided what follows."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._has_provider = False
        self._look_at = float("-inf")

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Keep the current context with the message, unless it has one already."""
        if OPTION not in message.options:
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier)
            if carrier:
                message.options[OPTION] = carrier

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Begin the span of an attempt."""
        run = execution.current()
        if run is None or not self._is_on():
            return
        span = trace.get_tracer("queueadmin").start_span(
            f"process {run.actor}",
            context=_extracted(message.options.get(OPTION)),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "dramatiq",
                "messaging.operation.type": "process",
                "messaging.destination.name": run.queue,
                "messaging.message.id": run.job,
                "queueadmin.actor": run.actor,
                "queueadmin.attempt": run.attempt,
                "queueadmin.dispatch": run.dispatch,
            },
        )
        self._local.open = _Open(span, context.attach(trace.set_span_in_context(span)))

    def _is_on(self) -> bool:
        """Return whether spans go anywhere; a provider that was set up stays."""
        if not self._has_provider and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            provider = trace.get_tracer_provider()
            self._has_provider = not isinstance(provider, trace.ProxyTracerProvider)
        return self._has_provider

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """End the span of an attempt."""
        opened: _Open | None = getattr(self._local, "open", None)
        if opened is None:
            return
        self._local.open = None
        run = execution.current()
        outcome = _outcome(message, run, exception)
        if opened.span.is_recording():
            opened.span.set_attribute("queueadmin.outcome", outcome.value)
            if exception is not None and outcome in (Outcome.RETRYING, Outcome.DEAD):
                # Not by record_exception: what the job's arguments are is cut out of the text.
                kind = type(exception).__qualname__
                text = str(exception)
                opened.span.add_event(
                    "exception",
                    {
                        "exception.type": kind,
                        "exception.message": run.redact(text)[:_LONGEST] if run else "",
                    },
                )
                opened.span.set_status(trace.StatusCode.ERROR, kind)
        context.detach(opened.token)
        opened.span.end()

    #: Too old, or held: the span says so.
    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """End the span of a run that another middleware did not let begin."""
        self.after_process_message(broker, message)


def _extracted(carrier: object) -> context.Context | None:
    """Return the context that a message carries, None for none or a damaged one."""
    if not isinstance(carrier, Mapping):
        return None
    headers = {
        name: value
        for name in _HEADERS
        if isinstance(value := carrier.get(name), str) and len(value) <= _LONGEST
    }
    # An empty context, or the thread's own would be the parent.
    return _PROPAGATOR.extract(headers, context=context.Context()) if headers else None


def _outcome(
    message: MessageProxy, run: execution.Execution | None, exception: BaseException | None
) -> Outcome:
    """Return how the attempt ends, as it is about to be recorded."""
    if run is not None and run.returned:
        return Outcome.RETURNED
    if run is not None and run.cancelled:
        return Outcome.CANCELLED
    if message.failed:
        return Outcome.DEAD
    return Outcome.COMPLETED if exception is None else Outcome.RETRYING
