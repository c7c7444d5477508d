"""What happens to running jobs when the workers are told to stop."""

import re
import signal

import dramatiq
import psutil
import pytest

from queueadmin import dispatcher
from queueadmin.consumer import split
from queueadmin.models import Attempt, Job, Worker
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


def held(broker):
    """Return the ids of the messages in the hands of worker processes."""
    hands = map(broker.transport.held_by, Worker.objects.values_list("pk", flat=True))
    return [parcel_id for queues in hands for ids in queues.values() for parcel_id in ids]


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


def test_what_waits_behind_a_long_job_goes_to_other_processes_at_once(
    start_master, broker, work, journal
):
    leaving = start_master("--worker-shutdown-timeout", "600000", processes=1, threads=1)
    # By these it learns that jobs of this queue are short, so that it holds many.
    brief = dramatiq.actor(lambda: None, actor_name="brief", queue_name="workload", broker=broker)
    broker.enqueue_many([brief.message() for _ in range(200)])
    wait_until(lambda: completed() == 200, 40)
    work.send(0, 300.0)
    wait_until(lambda: "start 0" in journal.read_text())
    others = [work.message(number) for number in range(1, 11)]
    broker.enqueue_many(others)
    wait_until(lambda: len(held(broker)) == 11)
    start_master(processes=1, threads=2, log="other")
    assert journal.read_text().count("start ") == 1

    leaving.send_signal(signal.SIGTERM)
    # The long job goes on for minutes.
    wait_until(lambda: journal.read_text().count("start ") == 11)

    wait_until(lambda: completed() == 210)
    text = journal.read_text()
    assert "end 0" not in text
    assert leaving.poll() is None
    assert sorted(map(int, re.findall(r"start (\d+)", text))) == list(range(11))
    jobs = Job.objects.filter(pk__in=[message.message_id for message in others])
    assert set(jobs.values_list("attempts", "dispatch", "crashes")) == {(1, 1, 0)}
    assert Attempt.objects.count() == 210


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
    broker.enqueue_many([work.message(number, 0.02) for number in range(600)])
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
