"""Dramatiq with django-dramatiq's AdminMiddleware; see `benchmarks.rivals.bare`."""

import sys
import time

import django

django.setup()

import dramatiq  # noqa: E402  # the app sets the broker
from django.db import transaction  # noqa: E402

broker = dramatiq.get_broker()


@dramatiq.actor(queue_name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    begun = time.perf_counter()
    for _ in range(int(sys.argv[2])):
        with transaction.atomic():
            noop.send(sys.argv[3])
    sys.stdout.write(f"{time.perf_counter() - begun}\n")
