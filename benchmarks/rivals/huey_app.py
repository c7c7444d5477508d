"""Huey: the no-op jobs of `benchmarks.drain`; run in an environment of its own."""

import os
import sys

from huey import RedisHuey

huey = RedisHuey(
    "".join(each for each in os.environ["RIVAL_QUEUE"] if each.isalnum()),
    url=os.environ["REDIS_URL"],
    results=False,
)


@huey.task(name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    # As the consumer imports it, so that it finds the task.
    from huey_app import noop as task

    for _ in range(int(sys.argv[1])):
        task(sys.argv[2])
