"""`manage.py rundramatiq` as its users run it: real processes, real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import psutil
import pytest
from django.db import connection

from queueadmin.brokers import RedisBroker
from queueadmin.models import Attempt, Job
from queueadmin.states import JobState

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisBroker]:
    previous = dramatiq.get_broker()
    broker = RedisBroker(url=redis_url, namespace="workload")
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)
    broker.close()


@pytest.fixture
def master(
    redis_url: str, journal: Path, tmp_path: Path, broker: RedisBroker
) -> Iterator[subprocess.Popen[bytes]]:
    """A running `rundramatiq` with two processes of two threads."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.workload.settings",
        "REDIS_URL": redis_url,
        "WORKLOAD_JOURNAL": str(journal),
        "WORKLOAD_DATABASE": str(connection.settings_dict["NAME"]),
        "LOG_LEVEL": "INFO",
    }
    # Its own database number was chosen for this process already.
    environment.pop("PYTEST_XDIST_WORKER", None)
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "rundramatiq", "-p", "2", "-t", "2"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: (tmp_path / "log").read_text().count("is ready") == 2, 30)
        yield process
    finally:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)


@pytest.fixture
def work(broker: RedisBroker) -> dramatiq.Actor:
    """The workload's actor, as the producer knows it."""

    @dramatiq.actor(queue_name="workload", broker=broker)
    def work(number, seconds=0.0): ...

    return work


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def workers(master: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(master.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE
    ]


def completed() -> int:
    return Job.objects.filter(state=JobState.COMPLETED).count()


def test_a_killed_worker_is_restarted_alone_and_its_job_runs_again(master, work, journal):
    work.send(1, 1.5)
    wait_until(lambda: "start 1" in journal.read_text())
    (victim,) = re.findall(r"start 1 (\d+)", journal.read_text())
    bystander = next(child.pid for child in workers(master) if child.pid != int(victim))

    os.kill(int(victim), signal.SIGKILL)

    wait_until(lambda: completed() == 1)
    assert journal.read_text().count("start 1 ") == 2
    assert journal.read_text().count("end 1 ") == 1
    assert Attempt.objects.count() == 1
    wait_until(lambda: len(workers(master)) == 2)
    assert bystander in {child.pid for child in workers(master)}
    assert master.poll() is None


def test_sigterm_finishes_what_runs_and_leaves_no_process(master, work, journal):
    work.send(1, 1.0)
    wait_until(lambda: "start 1" in journal.read_text())
    children = workers(master)

    master.send_signal(signal.SIGTERM)

    assert master.wait(timeout=20) == 0
    assert "end 1 " in journal.read_text()
    assert completed() == 1
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_workers_end_when_their_supervisor_is_killed(master):
    children = workers(master)
    assert len(children) == 2

    master.kill()

    assert not psutil.wait_procs(children, timeout=10)[1]


def test_sighup_restarts_the_workers(master):
    before = {child.pid for child in workers(master)}

    master.send_signal(signal.SIGHUP)

    wait_until(lambda: len({child.pid for child in workers(master)} - before) == 2)
    assert master.poll() is None


def test_options_that_cannot_work_are_refused_with_a_reason():
    from django.core.management import CommandError, call_command

    with pytest.raises(CommandError, match="gevent is not supported"):
        call_command("rundramatiq", use_gevent=True)
    with pytest.raises(CommandError, match="must be 1 or more"):
        call_command("rundramatiq", processes=0)
