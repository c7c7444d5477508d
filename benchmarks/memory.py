"""What a worker process holds, beside a bare Dramatiq worker that imported the same project."""

import os
from statistics import mean

import psutil

from .fleet import wait_until
from .results import Row, row
from .rivals import PAYLOAD, THREADS, Dramatiq, Ours, System
from .stand import Stand

_UNIT = "MB per worker process"


class _WithProject(Dramatiq):
    module = "benchmarks.rivals.bare_project"

    def __init__(self, stand: Stand) -> None:
        super().__init__(stand, "bare-dramatiq")
        self._environment["RIVAL_NAMESPACE"] = self._namespace
        # The project's own broker is made as the project is imported, and not used.
        self._environment["BENCHMARK_NAMESPACE"] = f"{self._namespace}-unused"

    def fill(self, jobs: int) -> None:
        broker = self.broker()
        for _ in range(jobs):
            broker.enqueue(self.message("noop", PAYLOAD))
        broker.close()


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Let each system do the same jobs, in turns, and look at its idle workers."""
    jobs, runs = (2_000, 1) if quick else (20_000, 3)
    systems: list[System] = [Ours(stand), _WithProject(stand)]
    held: dict[str, list[float]] = {}
    try:
        for _ in range(runs):
            for system in systems:
                held.setdefault(system.name, []).append(_held(system, jobs))
    finally:
        for system in systems:
            system.close()
    return [row(name, _UNIT, values) for name, values in held.items()]


def ratios(rows: list[Row]) -> dict[str, float]:
    """Return how many times as much ours holds."""
    ours, bare = (found.median for found in rows)
    return {"bare-dramatiq": round(ours / bare, 3)}


def _held(system: System, jobs: int) -> float:
    system.fill(jobs)
    with system.work():
        wait_until(lambda: system.left() == 0, 120)
        return mean(process.memory_info().rss for process in _workers()) / 1_000_000


def _workers() -> list[psutil.Process]:
    """Return the processes below this one that run jobs: those with that many threads."""
    below = psutil.Process(os.getpid()).children(recursive=True)
    return [process for process in below if process.num_threads() >= THREADS]
