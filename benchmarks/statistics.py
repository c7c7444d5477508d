"""How long the statistics of all queues take over millions of jobs."""

import time

from .ledger import FULL, QUICK, fill
from .results import Row, row
from .stand import Stand


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Ask for the statistics often, as the API's call and its caller's log-in see them."""
    jobs, dead = QUICK if quick else FULL
    fill(jobs, dead)
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.create_superuser("lead"))
    address = "/api/v1/statistics/"
    client.get(address)
    taken = []
    for _ in range(20 if quick else 100):
        begun = time.perf_counter()
        answer = client.get(address)
        taken.append((time.perf_counter() - begun) * 1_000)
        if answer.status_code != 200:
            raise RuntimeError(f"{address} answered {answer.status_code}")
    return [row("queueadmin", f"ms, statistics of {jobs:,} jobs", taken)]
