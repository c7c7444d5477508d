"""How many normal jobs a high one waits for that was enqueued behind ten thousand."""

from bisect import bisect_left
from time import time

from .fleet import message, send_many
from .results import Row, row
from .stand import Stand

_HIGH = 1_000_000


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Send high-priority jobs, one at a time, into a long queue that is being worked off."""
    jobs, probes = (2_000, 5) if quick else (10_000, 20)
    sent: list[float] = []
    with stand.fleet() as fleet:
        send_many(stand.broker, "open", range(jobs), 0.02)
        for probe in range(probes):
            fleet.wait_for(jobs * (probe + 1) // (probes + 2), 120)
            stand.broker.enqueue(message("open", _HIGH + probe, priority="high"))
            sent.append(time())
        runs = fleet.wait_for(jobs + probes, 240)
        threads = fleet.threads
    started = {run.number: run.begun for run in runs}
    normal = [run.begun for run in runs if run.number < _HIGH]
    overtaken, waited = [], []
    for probe, moment in enumerate(sent):
        begun = started[_HIGH + probe]
        overtaken.append(max(bisect_left(normal, begun) - bisect_left(normal, moment), 0) / threads)
        waited.append(max(begun - moment, 0) * 1000)
    took = max(run.ended for run in runs) - runs[0].begun
    return [
        row("queueadmin", "jobs waited for, per thread", overtaken),
        row("queueadmin", "ms from commit to start", waited),
        row("queueadmin", "jobs / s meanwhile", [jobs / took]),
    ]
