"""How fast waiting no-op jobs are done, side by side with other systems.

The systems take turns on the same servers, each with two processes of eight threads (BullMQ:
two of concurrency 8). The jobs are there before the workers start. What counts is the rate
over the last nine tenths of them, so that the start of the processes does not: from the moment
a tenth has ended to the last. A job of this project has ended when its outcome is committed.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .results import Row, row
from .rivals import BullMQ, Dramatiq, Ours, System, WithAdminMiddleware
from .rivals.environments import ANYWHERE, ON_POSTGRESQL
from .stand import Stand

#: The prefetch of Dramatiq that served it best here, of 32, 64 and 128.
BEST_PREFETCH = "64"
_LOOK_SECONDS = 0.01
_UNIT = "jobs / s"


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Measure every system in turn, several times over."""
    jobs, runs = (6_000, 2) if quick else (20_000, 5)
    rates: dict[str, list[float]] = {}
    with _systems(stand, quick=quick) as systems:
        for _ in range(runs):
            for system in systems:
                rates.setdefault(system.name, []).append(
                    rate(system, max(round(jobs * system.share), 200))
                )
    return [row(name, _UNIT, values) for name, values in rates.items()]


@contextmanager
def _systems(stand: Stand, *, quick: bool) -> Iterator[list[System]]:
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
    with ExitStack() as stack:
        for system in systems:
            stack.callback(system.close)
        yield systems


def rate(system: System, jobs: int) -> float:
    """Return jobs per second over the last nine tenths.

    Raises:
        TimeoutError: they were not done within two minutes.
    """
    system.fill(jobs)
    deadline = time.monotonic() + 120
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
        return at_start / (time.monotonic() - began)
