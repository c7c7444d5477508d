"""How long a committed job waits for an idle worker, beside bare Dramatiq."""

import random
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from .fleet import message, wait_until
from .results import Row, row
from .rivals import PROCESSES, THREADS, Dramatiq
from .stand import Stand


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Send single jobs with pauses between them, to one system and then the other, and again."""
    jobs, rounds = (40, 2) if quick else (150, 5)
    waits: dict[str, list[list[float]]] = {"queueadmin": [], "bare-dramatiq": []}
    with tempfile.TemporaryDirectory(prefix="queueadmin-latency-") as directory:
        journal = Path(directory) / "journal"
        bare = Dramatiq(stand, "bare-dramatiq", "timed", {"BENCHMARK_JOURNAL": str(journal)})
        try:
            for _ in range(rounds):
                waits["queueadmin"].append(_ours(stand, jobs))
                waits["bare-dramatiq"].append(_bare(bare, journal, jobs))
        finally:
            bare.close()
    rows = []
    for place, words in ((49, "median"), (94, "95th percentile")):
        for system, found in waits.items():
            values = [quantiles(each, n=100)[place] * 1_000 for each in found]
            rows.append(row(system, f"ms from commit to start, {words}", values))
    return rows


def _pauses(jobs: int) -> list[float]:
    # Longer than any poll's rhythm, and in step with none.
    return [random.uniform(0.03, 0.15) for _ in range(jobs)]  # noqa: S311


def _ours(stand: Stand, jobs: int) -> list[float]:
    from django.db import transaction

    committed: list[float] = []
    with stand.fleet(processes=PROCESSES, threads=THREADS) as fleet:
        time.sleep(2)  # until they are idle
        for number, pause in enumerate(_pauses(jobs)):
            time.sleep(pause)
            with transaction.atomic():
                # The first hook: after the commit, before the push.
                transaction.on_commit(lambda: committed.append(time.time()))
                stand.broker.enqueue(message("open", number))
        runs = fleet.wait_for(jobs, 30)
    return [run.begun - committed[run.number] for run in runs]


def _bare(bare: Dramatiq, journal: Path, jobs: int) -> list[float]:
    sent: list[float] = []
    journal.write_bytes(b"")
    with bare.work():
        time.sleep(5)  # until they are idle
        broker = bare.broker()
        for number, pause in enumerate(_pauses(jobs)):
            time.sleep(pause)
            sent.append(time.time())
            broker.enqueue(bare.message("timed", number))
        wait_until(lambda: journal.read_bytes().count(b"\n") >= jobs, 30)
        broker.close()
    lines = (line.split() for line in journal.read_text().splitlines())
    return [float(begun) - sent[int(number)] for number, begun in lines]
