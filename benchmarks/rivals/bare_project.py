"""Bare Dramatiq in a process that has imported the whole Django project; see `benchmarks.memory`."""

import importlib
import os

import django

django.setup()

import dramatiq  # noqa: E402  # the project's app sets its own broker
from dramatiq.brokers.redis import RedisBroker  # noqa: E402

# What `rundramatiq` imports for a worker of this project.
for name in ("queueadmin", "orders", "notifications", "benchmarks.workload"):
    importlib.import_module(f"{name}.actors")

broker = RedisBroker(url=os.environ["REDIS_URL"], namespace=os.environ["RIVAL_NAMESPACE"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="noop")
def noop(payload: str) -> None:
    """Do nothing."""
