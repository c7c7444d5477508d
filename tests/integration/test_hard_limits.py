"""A job that nothing can interrupt ends its process, and nobody else pays for it."""

import re

import dramatiq
import pytest

from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import DeathCause, JobState
from tests.integration.fleet import completed, wait_until, workers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.every_provider,
]


@pytest.fixture
def hang(broker):
    @dramatiq.actor(queue_name="workload", broker=broker, max_retries=0)
    def hang(number, *, holding_the_lock): ...

    return hang


@pytest.mark.parametrize("holding_the_lock", [True, False])
def test_a_job_stuck_in_c_code_is_recorded_as_time_limit_and_runs_once(
    master, work, hang, journal, holding_the_lock
):
    hang.send(1, holding_the_lock=holding_the_lock)
    wait_until(lambda: "start 1" in journal.read_text())
    (victim,) = re.findall(r"start 1 (\d+)", journal.read_text())
    for number in range(2, 12):
        work.send(number)

    wait_until(lambda: DeadLetter.objects.exists())

    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.TIME_LIMIT
    assert letter.error_class == "HardTimeLimitExceeded"
    attempt = Attempt.objects.get(job_id=letter.job_id)
    assert attempt.number == 1
    assert attempt.duration_ms > 1000
    assert attempt.worker.endswith(f":{victim}")
    wait_until(lambda: completed() == 10)
    wait_until(lambda: len(workers(master)) == 2)
    assert int(victim) not in {child.pid for child in workers(master)}
    assert journal.read_text().count("start 1 ") == 1
    assert Job.objects.get(id=letter.job_id).state == JobState.DEAD


def test_a_process_without_its_recorder_is_replaced_and_the_job_runs_elsewhere(
    master, broker, work, journal
):
    before = {child.pid for child in workers(master)}
    broken = dramatiq.actor(
        lambda: None, actor_name="break_recorder", queue_name="workload", broker=broker
    )
    broken.send()

    wait_until(lambda: {child.pid for child in workers(master)} - before)
    work.send(1)
    wait_until(lambda: "end 1" in journal.read_text())
