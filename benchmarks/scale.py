"""What a job costs as the backlog, the ledger and the number of workers grow tenfold, twice.

The cost is the time per job on workers that keep the machine busy: over the same number of them
for workers and ledger, over the whole backlog for backlogs. The first jobs of a long one would
say something else: the threads run ahead of the recorder at first (decision 23), so that
thousands of others run while the outcomes of the first are committed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .drain import rate
from .ledger import add_completed
from .results import Row, row
from .rivals import Ours
from .stand import Stand

_UNIT = "us per job"


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure each size several times, from the smallest to the largest."""
    jobs, runs = (1_000, 1) if quick else (10_000, 3)
    rows = []
    sizes = ((1, 1), (2, 5)) if quick else ((1, 1), (2, 5), (10, 10))
    for processes, threads in sizes:
        costs = [_cost(stand, jobs, processes, threads) for _ in range(runs)]
        rows.append(row(f"queueadmin, {processes * threads} threads", _UNIT, costs))
    for waiting in (jobs, jobs * 10, jobs * 100):
        costs = [_cost(stand, waiting) for _ in range(runs)]
        rows.append(row(f"queueadmin, {waiting:,} waiting", _UNIT, costs))
    if "postgresql" in stand.servers["database"]:
        before = 0
        for kept in (0, jobs * 10, jobs * 100) if quick else (0, jobs * 100, jobs * 1_000):
            add_completed(before, kept)
            before = kept
            costs = [_cost(stand, jobs) for _ in range(runs)]
            rows.append(row(f"queueadmin, {kept:,} more in the ledger", _UNIT, costs))
    return rows


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return by how much the largest of each kind costs more than the smallest."""
    kinds = ("threads", "waiting", "in the ledger")
    found = {kind: [each.median for each in rows if each.system.endswith(kind)] for kind in kinds}
    return {kind: round(costs[-1] / costs[0], 3) for kind, costs in found.items() if costs}


def _cost(stand: Stand, jobs: int, processes: int = 2, threads: int = 8) -> float:
    """Return the microseconds per job of so many that wait."""
    cost = 1_000_000 / rate(_Sized(stand, processes, threads), jobs, seconds=120 + jobs / 2_000)
    time.sleep(1)  # until the last fleet's heartbeats are over
    return cost


class _Sized(Ours):
    """A fleet of another size."""

    def __init__(self, stand: Stand, processes: int, threads: int) -> None:
        super().__init__(stand)
        self._fleet = stand.fleet(processes=processes, threads=threads, job_log="INFO")

    @contextmanager
    def work(self) -> Iterator[None]:
        # Nobody starts before the last process is ready.
        from queueadmin import queues

        queues.pause(self._queue, by=None, reason="until all are ready")
        with self._fleet:
            queues.resume(self._queue, by=None)
            yield
