"""Jobs for tests that run real worker processes; their effects go to a file of their own."""

import os
import time

import dramatiq


def _append(line: str) -> None:
    # One write of a short line: atomic with O_APPEND, whoever else writes.
    with open(os.environ["WORKLOAD_JOURNAL"], "a") as journal:
        journal.write(line + "\n")


@dramatiq.actor(queue_name="workload")
def work(number: int, seconds: float = 0.0) -> None:
    """Note the start, take a while, note the end."""
    _append(f"start {number} {os.getpid()}")
    time.sleep(seconds)
    _append(f"end {number} {os.getpid()}")
