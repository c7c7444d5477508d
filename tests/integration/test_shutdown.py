"""What happens to running jobs when the workers are told to stop."""

import signal

import psutil
import pytest

from queueadmin import dispatcher
from queueadmin.consumer import split
from queueadmin.models import Attempt, Job
from queueadmin.states import JobState
from tests.integration.fleet import completed, wait_until, workers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.every_provider,
]


@pytest.fixture
def master_arguments():
    return ["--worker-shutdown-timeout", "500"]


def test_a_job_that_does_not_end_in_time_goes_back_without_losing_an_attempt(
    master, broker, work, journal
):
    work.send(1, 60.0)
    wait_until(lambda: "start 1" in journal.read_text())

    master.send_signal(signal.SIGTERM)

    assert master.wait(timeout=30) == 0
    job = Job.objects.get()
    assert (job.state, job.attempts, job.crashes, job.dispatch) == (JobState.WAITING, 0, 0, 2)
    assert not Attempt.objects.exists()
    # It waits in the broker for whoever comes next, not in dead hands.
    assert [parcel_id for parcel_id, _ in broker.transport.fetch("workload", 9)] == [f"{job.id}:2"]


@pytest.mark.parametrize("master_arguments", [["--worker-shutdown-timeout", "600000"]])
def test_after_a_second_signal_nobody_waits_and_no_job_is_lost_or_blamed(
    master, broker, work, journal
):
    work.send(1, 600.0)
    wait_until(lambda: "start 1" in journal.read_text())
    children = workers(master)
    master.send_signal(signal.SIGTERM)

    def has_ended():
        # A second one that comes at once is taken for the first, sent to the whole group.
        master.send_signal(signal.SIGTERM)
        return master.poll() is not None

    wait_until(has_ended, 60)

    assert not psutil.wait_procs(children, timeout=5)[1]
    dispatcher.rescue(broker)
    job = Job.objects.get()
    assert (job.state, job.attempts, job.crashes) == (JobState.WAITING, 0, 0)
    assert not Attempt.objects.exists()
    assert [split(each)[0] for each, _ in broker.transport.fetch("workload", 9)] == [job.id]


def test_a_rolling_restart_under_load_loses_nothing_and_counts_nothing_twice(
    master, broker, work, journal
):
    broker.enqueue_many([work.message(number, 0.005) for number in range(600)])
    for _ in range(2):
        before = {child.pid for child in workers(master)}
        done = completed()
        wait_until(lambda done=done: completed() > done)
        master.send_signal(signal.SIGHUP)
        wait_until(lambda before=before: len({c.pid for c in workers(master)} - before) == 2)

    wait_until(lambda: completed() == 600, 60)
    text = journal.read_text()
    assert text.count("start ") == text.count("end ") == 600
    assert Attempt.objects.count() == 600
