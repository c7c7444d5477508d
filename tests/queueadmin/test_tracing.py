"""Trace context from the request to each attempt, as an SDK's exporter sees it."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from django.utils import timezone
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from queueadmin import deadletters
from queueadmin.exceptions import PermanentError
from queueadmin.models import DeadLetter, Job
from queueadmin.policies import Policy, fixed
from queueadmin.states import JobState
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def spans(settings: Any, monkeypatch: Any) -> Iterator[InMemorySpanExporter]:
    """Collect finished spans; other tests see no provider."""
    settings.QUEUEADMIN = {"QUEUES": {"mail": Policy(attempts=2, backoff=fixed(5))}}
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider = TracerProvider()
    provider.add_span_processor(processor)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    processor.shutdown()


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def send(broker: Any, failures: list[BaseException]) -> Any:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def send(address: str = "") -> None:
        if failures:
            raise failures.pop()

    return send


def in_a_request(act: Any) -> ReadableSpan:
    """Act inside the span of a request, and return that."""
    with trace.get_tracer("web").start_as_current_span("GET /") as span:
        act()
    return span


def attempts(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name.startswith("process")]


def test_an_attempt_is_a_child_of_the_request(send, spans):
    request = in_a_request(lambda: send.send("ann@example.com"))
    run_jobs()

    (span,) = attempts(spans)
    assert span.context.trace_id == request.context.trace_id
    assert span.parent.span_id == request.context.span_id
    assert (span.name, span.kind) == ("process send", trace.SpanKind.CONSUMER)
    job = Job.objects.get()
    assert span.attributes["messaging.message.id"] == job.pk
    assert span.attributes["messaging.destination.name"] == "mail"
    assert (span.attributes["queueadmin.attempt"], span.attributes["queueadmin.outcome"]) == (
        1,
        "completed",
    )
    assert "ann@example.com" not in span.to_json()


def test_many_enqueued_at_once_carry_it_too(broker, send, spans):
    request = in_a_request(lambda: broker.enqueue_many([send.message(), send.message()]))
    run_jobs()

    assert [span.context.trace_id for span in attempts(spans)] == [request.context.trace_id] * 2


def test_retries_and_requeues_stay_in_the_trace(send, spans, failures):
    failures += [ConnectionError("b"), ConnectionError("a")]
    request = in_a_request(lambda: send.send("x"))
    run_jobs()
    with time_machine.travel(timezone.now() + timedelta(seconds=6)):
        run_jobs()
        deadletters.requeue([DeadLetter.objects.get().pk], by=None)
        run_jobs()

    found = attempts(spans)
    assert [span.attributes["queueadmin.outcome"] for span in found] == [
        "retrying",
        "dead",
        "completed",
    ]
    assert {span.context.trace_id for span in found} == {request.context.trace_id}
    assert {span.parent.span_id for span in found} == {request.context.span_id}
    assert len({span.context.span_id for span in found}) == 3
    assert [span.status.is_ok for span in found] == [False, False, True]


def test_a_failure_says_its_class_and_no_argument(broker, spans):
    @dramatiq.actor(queue_name="mail", broker=broker, sensitive=["pin"])
    def check(pin: str) -> None:
        raise PermanentError(f"wrong pin {pin}")

    in_a_request(lambda: check.send("4711-secret"))
    run_jobs()

    (span,) = attempts(spans)
    (event,) = span.events
    assert event.attributes["exception.type"] == "PermanentError"
    assert "4711-secret" not in span.to_json()
    assert event.attributes["exception.message"].startswith("wrong pin")


def test_what_a_job_enqueues_belongs_to_its_attempt(broker, send, spans):
    @dramatiq.actor(queue_name="mail", broker=broker)
    def outer() -> int:
        send.send("x")
        return 1

    @dramatiq.actor(queue_name="mail", broker=broker)
    def after(number: int) -> None: ...

    request = in_a_request(lambda: (outer.message() | after.message()).run())
    run_jobs()

    by_name = {span.name: span for span in attempts(spans)}
    parent = by_name["process outer"].context.span_id
    assert by_name["process outer"].parent.span_id == request.context.span_id
    assert by_name["process send"].parent.span_id == parent
    assert by_name["process after"].parent.span_id == parent


def test_without_a_request_an_attempt_begins_a_trace_of_its_own(send, spans):
    send.send("x")
    send.send("y")
    run_jobs()

    first, second = attempts(spans)
    assert first.parent is None
    assert first.context.trace_id != second.context.trace_id
    assert b'"trace"' not in bytes(Job.objects.first().message)


@pytest.mark.parametrize(
    "carried",
    ["text", 7, {}, {"traceparent": 7}, {"traceparent": "00-zz"}, {"traceparent": "0" * 9_000}],
)
def test_a_damaged_context_harms_nothing(send, spans, carried):
    send.send_with_options(args=("x",), trace=carried)
    run_jobs()

    (span,) = attempts(spans)
    assert span.parent is None
    assert Job.objects.get().state == JobState.COMPLETED


def test_a_job_that_another_middleware_skips_ends_its_span(broker, spans):
    @dramatiq.actor(queue_name="mail", broker=broker, max_age=1)
    def late() -> None: ...

    with time_machine.travel(timezone.now() - timedelta(hours=1)):
        late.send()
    run_jobs()

    (span,) = attempts(spans)
    assert span.attributes["queueadmin.outcome"] == "dead"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_without_a_provider_nothing_is_carried_or_begun(send):
    send.send("x")
    run_jobs()

    job = Job.objects.get()
    assert job.state == JobState.COMPLETED
    assert b'"trace"' not in bytes(job.message)


def test_where_neither_is_installed_nothing_is_imported_and_no_hook_is_added():
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = sys.modules['sentry_sdk'] = None\n"
        "import django; django.setup()\n"
        "import dramatiq\n"
        "names = {type(each).__name__ for each in dramatiq.get_broker().middleware}\n"
        "assert not names & {'Tracing', 'Sentry'}, names\n"
        "assert 'queueadmin.tracing' not in sys.modules\n"
        "assert 'queueadmin.sentry' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
