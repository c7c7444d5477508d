"""A job that kills its process each time stops after three, and takes nobody with it."""

import os
import re
import signal

import dramatiq
import pytest
from django.db import connection

from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeathCause, JobState
from tests.integration.fleet import completed, wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
    pytest.mark.every_provider,
]


@pytest.fixture
def kill(broker):
    @dramatiq.actor(queue_name="workload", broker=broker)
    def kill(number): ...

    return kill


def test_a_poison_pill_is_a_dead_letter_after_three_crashes_and_the_others_complete(
    master, broker, work, kill, journal
):
    others = [work.message(number, 0.01) for number in range(1, 501)]
    pill = kill.message(0)
    broker.enqueue_many([*others[:50], pill, *others[50:]])

    wait_until(DeadLetter.objects.exists, 90)
    wait_until(lambda: completed() == 500, 90)

    letter = DeadLetter.objects.get()
    assert letter.job_id == pill.message_id
    assert letter.died_by == DeathCause.WORKER_CRASHED
    assert Job.objects.get(id=pill.message_id).state == JobState.DEAD
    processes = re.findall(r"^start 0 (\d+)$", journal.read_text(), re.MULTILINE)
    assert len(processes) == 3
    # The last time it was alone.
    assert len(re.findall(rf" {processes[-1]}$", journal.read_text(), re.MULTILINE)) == 1
    # Started twice were only jobs that ran beside it, or had ended and were not recorded yet.
    starts = re.findall(r"^start (\d+) (\d+)$", journal.read_text(), re.MULTILINE)
    repeated = [
        (number, process)
        for index, (number, process) in enumerate(starts)
        if number != "0" and number in {later for later, _ in starts[index + 1 :]}
    ]
    assert {process for _, process in repeated} <= set(processes[:2])


def test_an_innocent_that_shared_dying_processes_completes_in_one_of_its_own(
    master, broker, work, journal
):
    message = work.message(7)
    broker.enqueue_many([message.copy(options={"eta": 4_000_000_000_000})])
    Job.objects.update(crashes=2, is_suspect=True, due_at="2020-01-01T00:00Z")

    wait_until(lambda: completed() == 1)
    assert journal.read_text().count("start 7 ") == 1
    assert not DeadLetter.objects.exists()
    wait_until(lambda: broker.transport.size("workload") == 0)


def test_a_job_that_ends_its_process_with_exit_code_0_is_a_crash_too(master, broker, journal):
    @dramatiq.actor(queue_name="workload", broker=broker)
    def leave(number): ...

    leave.send(3)

    wait_until(DeadLetter.objects.exists, 60)
    assert DeadLetter.objects.get().died_by == DeathCause.WORKER_CRASHED
    assert journal.read_text().count("start 3 ") == 3


def test_what_a_job_enqueues_and_returns_apart_is_committed_by_its_worker(
    master, broker, work, journal
):
    message = work.message(7)
    last = work.message_with_options(args=(8,), pipe_ignore=True)
    piped = message.copy(options={"pipe_target": last.asdict(), "eta": 4_000_000_000_000})
    broker.enqueue_many([piped])
    Job.objects.update(crashes=2, is_suspect=True, due_at="2020-01-01T00:00Z")

    wait_until(lambda: completed() == 2)
    first = Job.objects.get(id=message.message_id)
    ran_in = journal.read_text().split("start 7 ")[1].split()[0]
    assert first.worker.endswith(f":{ran_in}")
    assert first.attempt_set.get().outcome == "completed"


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL ends connections")
def test_a_crash_is_counted_by_a_supervisor_whose_connection_was_ended(
    master, broker, work, journal
):
    work.send(1, 30)
    for crashes in (1, 2):
        wait_until(lambda crashes=crashes: journal.read_text().count("start 1 ") == crashes)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        os.kill(int(journal.read_text().split()[-1]), signal.SIGKILL)
        wait_until(Job.objects.filter(crashes=crashes).exists)
