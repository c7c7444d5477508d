"""Rate, concurrency and pause over the whole fleet."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .fleet import Fleet, most_at_once, most_in_window, send_many, wait_until
from .results import Row, row
from .stand import Stand

_LOOK_SECONDS = 0.2


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure three limits, each `runs` times on a fleet of three processes."""
    runs, jobs = (1, 250) if quick else (3, 1_000)
    figures: dict[str, list[float]] = {}
    with stand.fleet() as fleet:
        # Idle workers first; what is measured is the limit, not the start of Python.
        _warm_up(stand, fleet)
        for _ in range(runs):
            for unit, value in (
                *_rate(stand, fleet, jobs).items(),
                *_concurrency(stand, fleet, jobs).items(),
                *_pause(stand, fleet, jobs * 10).items(),
            ):
                figures.setdefault(unit, []).append(value)
    return [row("queueadmin", unit, values) for unit, values in figures.items()]


def _warm_up(stand: Stand, fleet: Fleet) -> None:
    send_many(stand.broker, "open", range(200), 0.005)
    fleet.wait_for(200, 60)


def _fresh(fleet: Fleet) -> None:
    fleet.journal.write_bytes(b"")


def _rate(stand: Stand, fleet: Fleet, jobs: int) -> dict[str, float]:
    """50 starts per second: how long, how many by the server's clock, by the actors' own."""
    _fresh(fleet)
    with grants(stand.redis, stand.key("rated.grants")) as granted:
        began = time.time()
        send_many(stand.broker, "rated", range(jobs))
        runs = fleet.wait_for(jobs, 120)
        time.sleep(_LOOK_SECONDS)  # the last look at the server's log
    return {
        f"s for {jobs:,} jobs at 50 / s": max(run.ended for run in runs) - began,
        "grants in a second, server's clock": most_in_window(list(granted.values()), 1.0),
        "starts in a second, actors' clocks": most_in_window([run.begun for run in runs], 1.0),
        "grants per job": len(granted) / jobs,
        "attempts of a job at most": _most_attempts(),
    }


@contextmanager
def grants(client: Any, key: str) -> Iterator[dict[bytes, float]]:
    """Collect the server's own log of starts; it keeps each for a window, so none is missed."""
    seen: dict[bytes, float] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_SECONDS):
            found = client.zrange(key, 0, -1, withscores=True)
            seen.update({member: score / 1e6 for member, score in found})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _concurrency(stand: Stand, fleet: Fleet, jobs: int) -> dict[str, float]:
    """Ten at once, 50 ms each: never eleven, and how much of 200 per second is reached."""
    _fresh(fleet)
    send_many(stand.broker, "narrow", range(jobs), 0.05)
    runs = fleet.wait_for(jobs, 120)
    took = max(run.ended for run in runs) - runs[0].begun
    return {
        "at once with concurrency 10": most_at_once(runs),
        "% of the ideal with 50 ms jobs": 100 * jobs / took / 200,
    }


def _pause(stand: Stand, fleet: Fleet, jobs: int) -> dict[str, float]:
    """From the pause to the last start, while thousands wait; and whether it goes on."""
    from queueadmin import queues  # models: after django.setup()

    _fresh(fleet)
    send_many(stand.broker, "open", range(jobs), 0.02)
    fleet.wait_for(jobs // 10, 60)
    queues.pause("open", by=None, reason="benchmark")
    paused = time.time()
    time.sleep(3)  # long after it must have taken effect
    last = fleet.runs()[-1].begun
    left = jobs - len(fleet.runs())
    queues.resume("open", by=None)
    resumed = time.time()
    runs = fleet.wait_for(jobs, 120)
    first = min(run.begun for run in runs if run.begun > resumed)
    wait_until(_is_recorded, 60)
    return {
        "s from pause to the last start": max(last - paused, 0.0),
        "s from resume to the first start": first - resumed,
        "jobs that waited meanwhile": left,
    }


def _is_recorded() -> bool:
    from queueadmin.models import Job

    return not Job.objects.unfinished().exists()


def _most_attempts() -> int:
    from queueadmin.models import Attempt

    wait_until(_is_recorded, 60)
    return max(Attempt.objects.values_list("number", flat=True))
