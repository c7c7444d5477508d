"""Bare Dramatiq: the no-op jobs of `benchmarks.drain`, as an application without Django has them.

`python -m benchmarks.rivals.bare QUEUE JOBS PAYLOAD` enqueues; `dramatiq` runs the module.
"""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

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


if __name__ == "__main__":
    actor = broker.get_actor(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        actor.send(sys.argv[3])
