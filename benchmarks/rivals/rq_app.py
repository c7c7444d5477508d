"""RQ: the no-op jobs of `benchmarks.drain`; run in an environment of its own."""

import os
import sys

from redis import Redis
from rq import Queue


def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    queue = Queue(os.environ["RIVAL_QUEUE"], connection=Redis.from_url(os.environ["REDIS_URL"]))
    jobs = int(sys.argv[1])
    for start in range(0, jobs, 500):
        queue.enqueue_many(
            [
                Queue.prepare_data("rq_app.noop", args=(sys.argv[2],), result_ttl=0)
                for _ in range(min(500, jobs - start))
            ]
        )
