"""What tests of running worker processes look at."""

import subprocess
import time

import psutil

from queueadmin.models import Job
from queueadmin.states import JobState


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
