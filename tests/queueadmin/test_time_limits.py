"""Interrupts strike a job, and nothing behind it."""

import subprocess
import sys
import threading
import time

import dramatiq
import pytest
from dramatiq.middleware import SkipMessage

from queueadmin.models import DeadLetter


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


_TRACED_AFTERWARDS = """
import sys, time
from types import SimpleNamespace
from dramatiq.middleware import TimeLimitExceeded
from queueadmin.time_limits import PolicyTimeLimit

controls = SimpleNamespace(is_cancelling=lambda job, dispatch: False)
broker = SimpleNamespace(scoreboard=None, actors={}, controls=controls)
message = SimpleNamespace(actor_name="a", queue_name="q", options={"time_limit": 1})
limit = PolicyTimeLimit()
limit.before_worker_boot(broker, None)
limit.before_process_message(broker, message)
try:
    while True:
        time.sleep(0.01)
except TimeLimitExceeded as error:
    limit.after_process_message(broker, message, exception=error)
sys.settrace(lambda *event: None)
limit.limit_ms(broker, message)
sys.settrace(None)
print("traced")
"""


def test_a_thread_that_was_interrupted_can_be_traced_afterwards():
    # In a process of its own, since Python 3.11 would never return.
    found = subprocess.run(
        [sys.executable, "-c", _TRACED_AFTERWARDS],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert found.stdout == "traced\n", found.stderr


@pytest.mark.django_db(transaction=True)
def test_an_actor_that_skips_its_message_is_not_interrupted_afterwards(
    broker, start_worker, caplog
):
    hangs = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker, time_limit=2_500, max_retries=0)
    def hang():
        hangs.set()
        while True:
            time.sleep(0.01)

    @dramatiq.actor(queue_name="q", broker=broker, time_limit=1_000)
    def skip():
        raise SkipMessage

    hang.send()
    worker = start_worker(threads=2)
    assert hangs.wait(15)
    skip.send()
    # By the time that the one is interrupted, the other's limit has long passed.
    wait_until(DeadLetter.objects.exists)

    assert caplog.text.count("Time limit exceeded") == 1
    assert all(thread.is_alive() for thread in worker.workers)
