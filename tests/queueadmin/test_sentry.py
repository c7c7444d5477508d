"""What Sentry gets of a job that failed for good; its transport is the test's."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import sentry_sdk
import time_machine
from django.utils import timezone
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from queueadmin import deadletters
from queueadmin.exceptions import PermanentError
from queueadmin.models import DeadLetter
from queueadmin.policies import Policy, fixed
from queueadmin.testing import run_jobs

# Put together: the lines of source that a stack shows are not what this is about.
ADDRESS = "@".join(["ann", "example.com"])
PIN = "-".join(["4711", "secret"])


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if (event := item.get_event()) is not None:
                self.events.append(event)


@pytest.fixture
def sent(settings: Any) -> Iterator[list[dict[str, Any]]]:
    settings.QUEUEADMIN = {
        "QUEUES": {"mail": Policy(attempts=2, backoff=fixed(5))},
        "RELEASE": "2026.11",
    }
    transport = Kept()
    with sentry_sdk.isolation_scope(), sentry_sdk.new_scope():
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            transport=transport,
            auto_enabling_integrations=False,
        )
        yield transport.events
        sentry_sdk.get_client().close()
        sentry_sdk.init()


@pytest.mark.django_db
class TestReports:
    def test_a_failure_is_reported_when_nothing_follows_it(self, broker, sent):
        failures = [ConnectionError("away"), ConnectionError("away")]

        @dramatiq.actor(queue_name="mail", broker=broker)
        def send(address: str) -> None:
            raise failures.pop()

        job = send.send(ADDRESS)
        run_jobs()
        assert sent == []
        with time_machine.travel(timezone.now() + timedelta(seconds=6)):
            run_jobs()

        (event,) = sent
        letter = DeadLetter.objects.get()
        (error,) = event["exception"]["values"]
        assert (error["type"], error["value"]) == ("ConnectionError", "away")
        assert error["stacktrace"]["frames"][-1]["function"] == "send"
        assert event["fingerprint"] == [letter.fingerprint]
        assert event["tags"] == {
            "queueadmin.job": job.message_id,
            "queueadmin.actor": "send",
            "queueadmin.queue": "mail",
            "queueadmin.fingerprint": letter.fingerprint,
            "queueadmin.attempt": "2",
            "queueadmin.cause": "attempts_exhausted",
            "queueadmin.release": "2026.11",
        }
        assert ADDRESS not in repr(event)

    def test_a_failure_after_a_requeue_is_another_one_of_the_same_issue(self, broker, sent):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def refuse() -> None:
            raise PermanentError("no such shop")

        refuse.send()
        run_jobs()
        deadletters.requeue([DeadLetter.objects.get().pk], by=None)
        run_jobs()

        assert len(sent) == 2
        assert sent[0]["fingerprint"] == sent[1]["fingerprint"]

    def test_sensitive_values_are_cut_out_of_chained_errors(self, broker, sent):
        @dramatiq.actor(queue_name="mail", broker=broker, sensitive=["pin"])
        def check(pin: str) -> None:
            hidden = pin
            try:
                raise ValueError(f"bad {hidden}")
            except ValueError as error:
                raise PermanentError(f"wrong {pin}") from error

        check.send(PIN)
        run_jobs()

        (event,) = sent
        assert [error["type"] for error in event["exception"]["values"]] == [
            "ValueError",
            "PermanentError",
        ]
        assert PIN not in repr(event)

    def test_what_completes_is_cancelled_or_retried_is_not_reported(self, broker, sent):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def work(fails: bool) -> None:
            if fails:
                raise ConnectionError

        work.send(False)
        work.send(True)
        run_jobs()

        assert sent == []

    def test_nothing_of_another_job_of_the_thread_is_in_it(self, broker, sent):
        @dramatiq.actor(queue_name="mail", broker=broker)
        def first() -> None:
            sentry_sdk.set_tag("order", "12")
            sentry_sdk.add_breadcrumb(message=ADDRESS)

        @dramatiq.actor(queue_name="mail", broker=broker)
        def refuse() -> None:
            raise PermanentError

        first.send()
        refuse.send()
        run_jobs()

        (event,) = sent
        assert ADDRESS not in repr(event)
        assert "order" not in event["tags"]

    def test_without_init_nothing_is_sent(self, broker):
        sentry_sdk.init()

        @dramatiq.actor(queue_name="mail", broker=broker)
        def refuse() -> None:
            raise PermanentError

        refuse.send()
        run_jobs()
        assert DeadLetter.objects.exists()


def test_a_worker_reports_once_although_its_log_tells_of_it_too(
    broker, sent, transactional_db, caplog
):
    caplog.set_level(logging.INFO, logger="queueadmin.jobs")

    @dramatiq.actor(queue_name="mail", broker=broker)
    def refuse() -> None:
        raise PermanentError("no such shop")

    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    refuse.send()
    broker.join("mail", timeout=10_000)
    worker.stop()

    assert DeadLetter.objects.count() == 1
    assert len(sent) == 1


def test_the_sdk_is_imported_when_it_is_needed_only():
    program = (
        "import sys, django; django.setup(); import dramatiq\n"
        "names = {type(each).__name__ for each in dramatiq.get_broker().middleware}\n"
        "assert 'Sentry' in names\n"
        "assert 'sentry_sdk' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
