"""How fast waiting no-op jobs are done, side by side with other systems.

The systems take turns on the same servers, each with two processes of eight threads (BullMQ:
two of concurrency 8). The jobs are there before the workers start. What counts is the rate
over the last nine tenths of them, so that the start of the processes does not: from the moment
a tenth has ended to the last. A job of this project has ended when its outcome is committed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from . import results
from .fleet import wait_until
from .results import Row, row
from .rivals import BullMQ, Dramatiq, Ours, System, WithAdminMiddleware
from .rivals.environments import ANYWHERE, ON_POSTGRESQL
from .stand import Stand

#: The prefetch of Dramatiq that served it best here, of 32, 64 and 128.
BEST_PREFETCH = "64"
_LOOK_SECONDS = 0.01
_MOST_SECONDS = 120.0
# Systems with so small a share take minutes, and are behind by an order of magnitude.
_SLOW = 0.1
_UNIT = "jobs / s"
_FAILING = "jobs / s, all fail once and a tenth twice"
_LIMITED = "jobs / s, at most 16 at once"


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure every system in turn, several times over; the slow ones in every other round."""
    jobs, runs = (6_000, 2) if quick else (20_000, 9)
    rates: dict[tuple[str, str], list[float]] = {}
    with _systems(stand) as systems:
        for turn in range(runs):
            for system, unit in systems:
                if turn % 2 and system.share <= _SLOW:
                    continue
                rates.setdefault((system.name, unit), []).append(
                    rate(system, max(round(jobs * system.share), 200))
                )
    return [row(name, unit, values) for (name, unit), values in rates.items()]


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return our median divided by each rival's; a limited queue's by that of one without."""
    medians = {(found.system, found.unit): found.median for found in rows}
    limited = medians["queueadmin", _LIMITED] / medians["bare-dramatiq", _UNIT]
    return {**results.ratios(rows), "bare-dramatiq, ours limited to 16": round(limited, 3)}


@contextmanager
def _systems(stand: Stand) -> Iterator[list[tuple[System, str]]]:
    is_sqlite = "sqlite" in stand.servers["database"]
    systems: list[System] = [
        Ours(stand),
        Dramatiq(stand, "bare-dramatiq"),
        Dramatiq(
            stand, "bare-dramatiq-tuned", environment={"dramatiq_queue_prefetch": BEST_PREFETCH}
        ),
        WithAdminMiddleware(stand, "sqlite" if is_sqlite else "postgresql"),
    ]
    if not is_sqlite:
        systems.append(BullMQ(stand))
        systems += [rival(stand) for rival in ON_POSTGRESQL]
    systems += [rival(stand) for rival in ANYWHERE]
    failing = Dramatiq(stand, "bare-dramatiq-failing", "failing", {"BENCHMARK_FAILING": "1"})
    turns: list[tuple[System, str]] = [
        *((system, _UNIT) for system in systems),
        (Ours(stand, "failing"), _FAILING),
        (failing, _FAILING),
        (Ours(stand, "limited"), _LIMITED),
    ]
    with ExitStack() as stack:
        for system, _ in turns:
            stack.callback(system.close)
        yield turns


def rate(system: System, jobs: int) -> float:
    """Return jobs per second over the last nine tenths.

    Raises:
        TimeoutError: they did not all arrive, or were not done in time.
    """
    system.fill(jobs)
    # A push that fails leaves jobs in the ledger, which would look as if they were done.
    wait_until(lambda: system.left() >= jobs, 10)
    deadline = time.monotonic() + _MOST_SECONDS
    began = 0.0
    with system.work():
        # Ours returns from its start when all processes are ready, so some jobs may be done:
        # the clock starts at the first look after the first tenth, with what is left then.
        at_start = 0
        while (left := system.left()) > 0:
            now = time.monotonic()
            if not began and left <= jobs * 0.9:
                began, at_start = now, left
            if now > deadline:
                raise TimeoutError(f"{system.name}: {left} of {jobs} jobs are left.")
            time.sleep(_LOOK_SECONDS)  # paces the looks
        # All may be done between two looks.
        return (at_start or jobs) / max(
            time.monotonic() - (began or deadline - _MOST_SECONDS), _LOOK_SECONDS
        )
