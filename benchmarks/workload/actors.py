"""Jobs that note in a file when they began and ended; each queue has one actor."""

import os
import time
from zlib import crc32

import dramatiq
from dramatiq.middleware import CurrentMessage

#: Queues with the limits that `benchmarks.settings` gives them; "open" and "timed" have none.
QUEUES = ("open", "timed", "rated", "rated-briefly", "narrow")


def run(number: int, seconds: float = 0.0) -> None:
    """Take a while, then note number, start and end in seconds since 1970, and process."""
    begun = time.time()
    if seconds:
        time.sleep(seconds)
    # One write of a short line: atomic with O_APPEND, whoever else writes.
    with open(os.environ["BENCHMARK_JOURNAL"], "a") as journal:
        journal.write(f"{number} {begun:.6f} {time.time():.6f} {os.getpid()}\n")


ACTORS = {
    queue: dramatiq.actor(run, actor_name=f"benchmark.{queue}", queue_name=queue)
    for queue in QUEUES
}


def fail(number: int, seconds: float = 0.0) -> None:
    """Do the same and fail."""
    run(number, seconds)
    raise ConnectionError(f"no answer for {number}")


#: Queues whose policies retry late, and not at all.
FAILING = {
    queue: dramatiq.actor(fail, actor_name=f"benchmark.{queue}", queue_name=queue)
    for queue in ("retrying", "dying")
}


@dramatiq.actor(actor_name="benchmark.noop", queue_name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


@dramatiq.actor(actor_name="benchmark.limited", queue_name="limited")
def limited(payload: str) -> None:
    """Do nothing, at most sixteen times at once."""


@dramatiq.actor(actor_name="benchmark.failing", queue_name="failing")
def failing(payload: str) -> None:
    """Fail the first time, and a tenth of the jobs the second time, too."""
    message = CurrentMessage.get_current_message()
    if message is None or not message.options.get("retries"):
        raise RuntimeError("as told")
    if crc32(message.message_id.encode()) % 10 == 0:
        raise RuntimeError("as told")
