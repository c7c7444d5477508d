"""Dramatiq with django-dramatiq's AdminMiddleware; see `benchmarks.rivals.bare`."""

import sys

import django

django.setup()

import dramatiq  # noqa: E402  # the app sets the broker

broker = dramatiq.get_broker()


@dramatiq.actor(queue_name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        noop.send(sys.argv[3])
