"""Bare Dramatiq: the no-op jobs of `benchmarks.drain`, as an application without Django has them.

`python -m benchmarks.rivals.bare QUEUE JOBS PAYLOAD` enqueues; `dramatiq` runs the module.
"""

import os
import sys
import time
from zlib import crc32

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage

broker = RedisBroker(url=os.environ["REDIS_URL"], namespace=os.environ["BENCHMARK_NAMESPACE"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


@dramatiq.actor(queue_name="timed")
def timed(number: int) -> None:
    """Note when it began."""
    with open(os.environ["BENCHMARK_JOURNAL"], "a") as journal:
        journal.write(f"{number} {time.time():.6f}\n")


# Which attempt it is only this middleware tells, which is none of Dramatiq's defaults.
if "BENCHMARK_FAILING" in os.environ:
    broker.add_middleware(CurrentMessage())


@dramatiq.actor(queue_name="failing", max_retries=1, min_backoff=1, max_backoff=1)
def failing(payload: str) -> None:
    """Fail the first time, and a tenth of the jobs the second time, too."""
    message = CurrentMessage.get_current_message()
    if message is None or not message.options.get("retries"):
        raise RuntimeError("as told")
    if crc32(message.message_id.encode()) % 10 == 0:
        raise RuntimeError("as told")


if __name__ == "__main__":
    actor = broker.get_actor(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        actor.send(sys.argv[3])
