"""Jobs for tests that run real worker processes; their effects go to a file of their own."""

import ctypes
import os
import signal
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


@dramatiq.actor(queue_name="workload")
def brief() -> None:
    """Take no time."""


@dramatiq.actor(queue_name="workload", max_retries=0, time_limit=300)
def hang(number: int, *, holding_the_lock: bool) -> None:
    """Stay in C code, where no time limit reaches."""
    _append(f"start {number} {os.getpid()}")
    # A PyDLL does not release the interpreter's lock during the call.
    library = ctypes.PyDLL(None) if holding_the_lock else ctypes.CDLL(None)
    library.sleep(60)
    _append(f"end {number} {os.getpid()}")


@dramatiq.actor(queue_name="workload")
def kill(number: int) -> None:
    """End the process that runs it."""
    _append(f"start {number} {os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor(queue_name="workload")
def break_recorder() -> None:
    """Leave this process without the thread that records."""
    recorder = dramatiq.get_broker().recorder
    recorder._inbox.put(None)
    recorder.threads[0].join()


@dramatiq.actor(queue_name="workload")
def leave(number: int) -> None:
    """End the process as if all were well."""
    _append(f"start {number} {os.getpid()}")
    os._exit(0)
