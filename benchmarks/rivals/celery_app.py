"""Celery: the no-op jobs of `benchmarks.drain`; run in an environment of its own."""

import os
import sys

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "celery_settings")
django.setup()  # the result backend has a model
app = Celery("rival", broker=os.environ["REDIS_URL"], backend="django-db", namespace="")
app.conf.update(
    task_default_queue=os.environ["RIVAL_QUEUE"],
    task_ignore_result=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        noop.delay(sys.argv[2])
