"""Ten thousand scheduled jobs: how late they start, and what they cost in memory."""

import random
import time
from statistics import quantiles

from .fleet import message, send_many
from .results import Row, row
from .stand import Stand


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Spread due times evenly at random over half a minute or more, and compare with the starts."""
    jobs, spread = (2_000, 15) if quick else (10_000, 60)
    with stand.fleet(processes=2) as fleet:
        send_many(stand.broker, "open", range(2_000))
        fleet.wait_for(2_000, 120)
        before = fleet.memory()
        fleet.journal.write_bytes(b"")
        first = time.time() + 5 + jobs / 2_000
        due = [first + random.uniform(0, spread) for _ in range(jobs)]  # noqa: S311
        stand.broker.enqueue_many(
            message("timed", number, eta=round(at * 1000)) for number, at in enumerate(due)
        )
        ready = time.time()
        scheduled = fleet.memory()
        most = before
        while len(fleet.runs()) < jobs and time.time() < first + spread + 60:
            most = [max(pair) for pair in zip(most, fleet.memory(), strict=True)]
            time.sleep(0.5)  # between two looks at the memory
        runs = fleet.runs()
    late = [run.begun - round(due[run.number] * 1000) / 1000 for run in runs]
    percent = quantiles(late, n=100)
    grown = [(after - start) / 1e6 for start, after in zip(before, most, strict=True)]
    held = [(after - start) / 1e6 for start, after in zip(before, scheduled, strict=True)]
    return [
        row("queueadmin", "s of lateness, median", [percent[49]]),
        row("queueadmin", "s of lateness, 99th percentile", [percent[98]]),
        row("queueadmin", "s of lateness, worst", [max(late)]),
        row("queueadmin", "s too early at most", [max(-min(late), 0.0)]),
        row("queueadmin", f"of {jobs:,} jobs have run", [float(len(runs))]),
        row("queueadmin", "s between last enqueue and first due", [first - ready]),
        row("queueadmin", "MB grown while scheduled, per process", held),
        row("queueadmin", "MB grown at most, per process", grown),
    ]
