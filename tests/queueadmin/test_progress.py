"""A long job says how far it has come, and it costs no write per call."""

import threading
import time

import dramatiq
import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

import queueadmin
from queueadmin import execution
from queueadmin.models import Job
from queueadmin.states import JobState

pytestmark = pytest.mark.django_db(transaction=True)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_the_latest_progress_of_a_running_job_is_in_the_ledger(broker, start_worker):
    steps = [threading.Event() for _ in range(2)]

    def report():
        for number in range(1000):
            queueadmin.progress(number, 5000, "reading")
        assert steps[0].wait(20)
        queueadmin.progress(4000, 5000, "x" * 500)
        assert steps[1].wait(20)

    dramatiq.actor(report, queue_name="slow", broker=broker).send()
    start_worker(threads=1)

    wait_until(lambda: Job.objects.filter(progress_done=999, progress_total=5000).exists())
    assert Job.objects.get().progress_text == "reading"
    steps[0].set()
    wait_until(lambda: Job.objects.filter(progress_done=4000).exists())
    assert Job.objects.get().progress_text == "x" * 200
    steps[1].set()
    wait_until(lambda: Job.objects.get().state == JobState.COMPLETED)
    assert Job.objects.get().progress_done == 4000


def test_saying_it_writes_nothing_and_outside_of_a_job_it_does_nothing():
    with CaptureQueriesContext(connections["default"]) as queries:
        queueadmin.progress(1, 2, "text")

    assert len(queries) == 0
    assert execution.current() is None


@pytest.mark.parametrize("numbers", [(-1, None), (1, -1), (2**63, None)])
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match="progress is counted from 0"):
        queueadmin.progress(*numbers)
