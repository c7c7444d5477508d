"""Every page of the console over millions of jobs, as a browser asks for them, and other doors."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from .ledger import FULL, QUICK, fill
from .results import Row, row
from .stand import Stand


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Ask for each page often, with other filters and records each time."""
    jobs, dead = QUICK if quick else FULL
    fill(jobs, dead)
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    from queueadmin import statistics

    # As the leading worker does every 30 seconds, and autovacuum after so much at once.
    statistics.fold(stand.broker)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.create_superuser("lead"))
    rows = []
    for name, address in _pages().items():
        client.get(address(0))
        taken = []
        for number in range(10 if quick else 40):
            begun = time.perf_counter()
            answer = client.get(address(number))
            taken.append((time.perf_counter() - begun) * 1_000)
            if answer.status_code != 200:
                raise RuntimeError(f"{name} answered {answer.status_code}: {address(number)}")
        slowest = quantiles(taken, n=20)[-1]
        rows.append(row("queueadmin", f"ms, {name}", taken))
        rows.append(row("queueadmin", f"ms at the 95th percentile, {name}", [slowest]))
    _status()
    taken = [_status() for _call in range(3 if quick else 10)]
    return [*rows, row("queueadmin", "ms, `queueadmin status` from start to end", taken)]


def _status() -> float:
    """Return how many milliseconds the command takes, the start of Python and Django included."""
    # As where people work: Python keeps what it has compiled.
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "django", "queueadmin", "status"],
        check=True, stdout=subprocess.DEVNULL, env=kept,
    )  # fmt: skip
    return (time.perf_counter() - begun) * 1_000


def _pages() -> dict[str, Callable[[int], str]]:
    from queueadmin.models import DeadLetter, FailureGroup

    base = "/admin/queueadmin/"
    letters: list[Any] = list(DeadLetter.objects.order_by("pk")[:100])
    groups = list(FailureGroup.objects.all()[:100])
    states = ("waiting", "completed", "retrying", "dead", "scheduled")

    def queue(number: int) -> str:
        return f"queue-{number % 15:02d}"

    return {
        "overview": lambda n: base + "overview/",
        "queues": lambda n: base + "queue/",
        "jobs": lambda n: base + "job/",
        "jobs of a state": lambda n: f"{base}job/?state={states[n % 5]}",
        "jobs of a queue": lambda n: f"{base}job/?queue={queue(n)}",
        "a job": lambda n: f"{base}job/{letters[n].job_id}/change/",
        "dead letters": lambda n: base + "deadletter/",
        "dead letters of a queue": lambda n: f"{base}deadletter/?queue={queue(n)}",
        "a dead letter": lambda n: f"{base}deadletter/{letters[n].pk}/change/",
        "failure groups": lambda n: base + "failuregroup/",
        "a failure group": lambda n: f"{base}failuregroup/{groups[n].pk}/change/",
        "requeue operations": lambda n: base + "requeueoperation/",
        "workers": lambda n: base + "worker/",
        "schedules": lambda n: base + "schedulecontrol/",
        "audit": lambda n: base + "auditentry/",
        "API: jobs": lambda n: "/api/v1/jobs/",
        "API: failed jobs of a queue": lambda n: f"/api/v1/jobs/?state=failed&queue={queue(n)}",
        "API: jobs of an actor": lambda n: f"/api/v1/jobs/?actor=actor_{n}",
        "API: attempts that failed": lambda n: "/api/v1/attempts/?outcome=dead",
        "API: dead letters": lambda n: f"/api/v1/dead-letters/?status=pending&queue={queue(n)}",
        "API: queues": lambda n: "/api/v1/queues/",
        "API: statistics": lambda n: "/api/v1/statistics/",
        "metrics": lambda n: "/metrics",
    }
