"""What a job costs as the backlog, the ledger and the number of workers grow tenfold, twice.

The cost is the time per job over the same number of them, on workers that keep the machine busy.
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
        costs = [_cost(stand, jobs, backlog=waiting - jobs) for _ in range(runs)]
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


def _cost(
    stand: Stand, jobs: int, processes: int = 2, threads: int = 8, *, backlog: int = 0
) -> float:
    """Return the microseconds per job over the first `jobs` of a backlog."""
    ours = _Sized(stand, processes, threads, ahead=backlog)
    try:
        return 1_000_000 / rate(ours, jobs)
    finally:
        ours.empty()


class _Sized(Ours):
    """A fleet of another size, whose queue holds more than is measured."""

    def __init__(self, stand: Stand, processes: int, threads: int, *, ahead: int) -> None:
        super().__init__(stand)
        self._fleet = stand.fleet(processes=processes, threads=threads, job_log="INFO")
        self._ahead = ahead

    def fill(self, jobs: int) -> None:
        super().fill(jobs + self._ahead)

    @contextmanager
    def work(self) -> Iterator[None]:
        # Nobody starts before the last process is ready.
        from queueadmin import queues

        queues.pause(self._queue, by=None, reason="until all are ready")
        with self._fleet:
            queues.resume(self._queue, by=None)
            yield

    def left(self) -> int:
        return super().left() - self._ahead

    def empty(self) -> None:
        """Remove what was not measured, in the ledger and in the server."""
        from django.db import connection

        if self._ahead:
            self._stand.broker.transport.purge(self._queue)
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM queueadmin_job WHERE state = 'waiting'")
        time.sleep(1)  # until the last fleet's heartbeats are over
