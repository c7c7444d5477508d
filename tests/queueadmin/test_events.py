"""The log lines of a job's life."""

import logging

import dramatiq
import pytest
from django.db import transaction

from queueadmin import queues
from queueadmin.exceptions import RetryAfter
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.DEBUG, logger="queueadmin.jobs")
    return lambda: [record for record in caplog.records if record.name == "queueadmin.jobs"]


def test_a_completed_job_is_logged_with_its_ids_and_duration(broker, events):
    @dramatiq.actor(queue_name="order-processing", broker=broker)
    def work(secret): ...

    message = work.send("hunter2")
    run_jobs()

    started, completed = events()
    assert (started.event, completed.event) == ("started", "completed")
    assert completed.job == message.message_id
    assert (completed.queue, completed.actor) == ("order-processing", "work")
    assert (completed.attempt, completed.of) == (1, 3)
    assert completed.duration_ms >= 0
    assert completed.levelname == "INFO"
    assert "hunter2" not in started.getMessage() + completed.getMessage()


def test_a_retry_is_a_warning_with_error_and_delay(broker, events):
    @dramatiq.actor(queue_name="order-processing", broker=broker)
    def work():
        raise RetryAfter("throttled", delay_ms=7_000)

    work.send()
    run_jobs()

    retrying = events()[-1]
    assert (retrying.event, retrying.levelname, retrying.delay_ms) == ("retrying", "WARNING", 7_000)
    assert "RetryAfter: throttled" in retrying.getMessage()


def test_a_death_is_an_error_with_its_cause_and_a_bounded_text(broker, events):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def work():
        raise ValueError("x" * 10_000 + "\nforged line")

    work.send()
    run_jobs()

    dead = events()[-1]
    assert (dead.event, dead.levelname, dead.died_by) == ("dead", "ERROR", "attempts_exhausted")
    assert len(dead.getMessage()) < 700
    assert "\n" not in dead.getMessage()


def test_a_pause_and_its_end_are_a_line_each_and_a_rolled_back_one_is_none(
    caplog, transactional_db
):
    caplog.set_level(logging.INFO, "queueadmin.jobs")

    queues.pause("mail", by=None, reason="provider away")
    with pytest.raises(RuntimeError), transaction.atomic():
        queues.resume("mail", by=None)
        raise RuntimeError("undo")
    queues.resume("mail", by=None)

    lines = [(record.event, record.queue) for record in caplog.records]
    assert lines == [("paused", "mail"), ("resumed", "mail")]
