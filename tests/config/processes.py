"""Finding and awaiting the processes that tests start."""

import time
from collections.abc import Callable

import psutil


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Return when the condition holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Return the living processes that were started with an environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            is_one = process.environ().get(name) == value
            if is_one and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
