"""`manage.py rundramatiq` as its users run it: real processes, real signals."""

import os
import re
import signal

import psutil
import pytest

from queueadmin.models import Attempt
from tests.integration.fleet import completed, wait_until, workers

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.every_provider,
]


def test_a_killed_worker_is_restarted_alone_and_its_job_runs_again(master, work, journal):
    work.send(1, 5.0)
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
