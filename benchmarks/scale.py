"""What a job costs as the backlog, the ledger and the number of workers grow tenfold, twice.

Two costs, both of whole backlogs on workers that are ready: the processor time of everything on
the machine (workers, database, message server) but this process, and the time from the first
fetch to the last commit. No part is left out: threads run ahead of the recorder at first
(decision 23), so that most of a short backlog has run before the first outcomes are committed.
Of a short one the time is the rougher measure: the processes do not see at the same moment
that they may begin, nor do they end together.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from .fleet import wait_until
from .ledger import add_completed
from .results import Row, row
from .rivals import Ours
from .stand import Stand

_CPU, _TIME = "us of CPU per job", "us per job"


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure each size several times, from the smallest to the largest."""
    jobs, runs = (1_000, 1) if quick else (10_000, 5)
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)

    def note(what: str, number: int, processes: int = 2, threads: int = 8) -> None:
        for unit, cost in _costs(stand, number, processes, threads).items():
            costs[f"queueadmin, {what}", unit].append(cost)

    for processes, threads in ((1, 1), (2, 5)) if quick else ((1, 1), (2, 5), (10, 10)):
        for _ in range(runs):
            note(f"{processes * threads} threads", jobs, processes, threads)
    for waiting in (jobs, jobs * 10, jobs * 100):
        # A long backlog has its ups and downs within itself.
        for _ in range(runs if waiting == jobs else max(runs // 2, 1)):
            note(f"{waiting:,} waiting", waiting)
    if "postgresql" in stand.servers["database"]:
        before = 0
        for kept in (0, jobs * 10, jobs * 100) if quick else (0, jobs * 100, jobs * 1_000):
            add_completed(before, kept)
            before = kept
            for _ in range(runs):
                note(f"{kept:,} more in the ledger", jobs)
    return [row(system, unit, values) for (system, unit), values in costs.items()]


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return by how much the largest of each kind costs more than the smallest."""
    found = {}
    for kind in ("threads", "waiting", "in the ledger"):
        for unit in (_CPU, _TIME):
            medians = [row.median for row in rows if (row.unit, _kind(row)) == (unit, kind)]
            if medians:
                found[f"{kind}, {unit}"] = round(medians[-1] / medians[0], 3)
    return found


def _kind(found: Row) -> str:
    return next(k for k in ("threads", "waiting", "in the ledger") if found.system.endswith(k))


def _costs(stand: Stand, jobs: int, processes: int, threads: int) -> dict[str, float]:
    """Return what each of so many waiting jobs cost, in microseconds, by unit.

    Raises:
        TimeoutError: they were not all done in time.
    """
    system = _Sized(stand, processes, threads)
    system.fill(jobs)
    # A push that fails leaves jobs in the ledger, which would look as if they were done.
    wait_until(lambda: system.left() >= jobs, 10)
    with system.work():
        busy = _busy_seconds()
        system.begin()
        wait_until(lambda: system.unfetched() < jobs, 30, every=0.002)
        began = time.monotonic()
        wait_until(lambda: not system.left(), 120 + jobs / 2_000, every=0.01)
        seconds = time.monotonic() - began
        busy = _busy_seconds() - busy
    time.sleep(1)  # until this fleet's heartbeats are over
    return {_CPU: busy / jobs * 1_000_000, _TIME: seconds / jobs * 1_000_000}


def _busy_seconds() -> float:
    """Return the processor time that this machine has spent, but for this process."""
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    spent = times.user + times.nice + times.system + times.irq + times.softirq
    return float(spent - own.user - own.system)


class _Sized(Ours):
    """A fleet of another size."""

    def __init__(self, stand: Stand, processes: int, threads: int) -> None:
        super().__init__(stand)
        self._fleet = stand.fleet(processes=processes, threads=threads, job_log="INFO")

    @contextmanager
    def work(self) -> Iterator[None]:
        """Start the processes; none begins before `begin`."""
        from queueadmin import queues

        queues.pause(self._queue, by=None, reason="until all are ready")
        with self._fleet:
            time.sleep(1)  # until all that a process does at its start is over
            yield

    def begin(self) -> None:
        """Let the processes fetch."""
        from queueadmin import queues

        queues.resume(self._queue, by=None)

    def unfetched(self) -> int:
        """Return how many jobs no process has fetched yet."""
        return int(self._stand.redis.llen(f"{self._key.removesuffix('.msgs')}.1"))
