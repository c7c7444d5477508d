"""A process that SIGSTOP freezes: others do its work, and what it says afterwards is late."""

import os
import re
import signal

import pytest

from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import JobState
from tests.integration.fleet import completed, wait_until, workers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.every_provider,
]


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setenv("WORKLOAD_HEARTBEAT_TIMEOUT_MS", "4000")


def test_what_a_frozen_process_ran_runs_elsewhere_and_its_late_outcome_is_refused(
    master, work, journal, tmp_path
):
    work.send(1, 3.0)
    wait_until(lambda: "start 1" in journal.read_text())
    (frozen,) = {int(pid) for pid in re.findall(r"start 1 (\d+)", journal.read_text())}
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: completed() == 1, 60)
        done = Job.objects.get()
        # Its supervisor leaves it alone: a person may have stopped it.
        assert frozen in {child.pid for child in workers(master)}
    finally:
        os.kill(frozen, signal.SIGCONT)

    wait_until(lambda: f"end 1 {frozen}" in journal.read_text())
    wait_until(lambda: "Stale outcome" in (tmp_path / "log").read_text())
    job = Job.objects.get()
    assert (job.state, job.worker) == (JobState.COMPLETED, done.worker)
    assert not job.worker.endswith(f":{frozen}")
    assert Attempt.objects.count() == 1
    assert not DeadLetter.objects.exists()
    assert master.poll() is None
