"""What became of the orders on plain Dramatiq: the same faults, for comparison.

There is no ledger to ask, so the journal tells: an order is done when its effect was seen, a
permanent failure when its message lies among Dramatiq's dead letters in Redis.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass

import redis

from .journal import Journal
from .workload.queues import QUEUES

#: Dramatiq waits a minute before it takes a silent worker for dead.
PATIENCE_SECONDS = 180.0
_STARTS = {"flaky": 2}


@dataclass(slots=True)
class Losses:
    """The figures that both systems have."""

    seed: int
    committed: int = 0
    lost: int = 0
    rolled_back_run: int = 0
    dead_without_letter: int = 0
    second_runs: int = 0
    poisoned: int = 0
    clean_after_s: float = 0.0

    def as_json(self) -> str:
        """Return the figures as one object."""
        return json.dumps(asdict(self))


def dead_letters(client: "redis.Redis") -> set[str]:
    """Return the ids of the messages that Dramatiq has given up."""
    found = set()
    for queue in QUEUES:
        for data in client.hvals(f"chaos:{queue}.XQ.msgs"):
            found.add(json.loads(data)["message_id"])
    return found


def unfinished(orders: list[tuple[int, str, str]], journal: Journal, dead: set[str]) -> list[int]:
    """Return the orders of which nothing says that they are done.

    Args:
        orders: number, mode and message of each that is in the database.
        journal: what the actors wrote.
        dead: ids of dead messages.
    """
    ended = {
        number
        for number, starts in journal.starts.items()
        if any(start.ended_at is not None for start in starts)
    }
    return [
        number
        for number, mode, job in orders
        if mode != "poison" and number not in ended and not (mode == "dead" and job in dead)
    ]


def losses(
    seed: int, orders: list[tuple[int, str, str]], journal: Journal, dead: set[str], clean: float
) -> Losses:
    """Return what was lost and repeated."""
    found = Losses(seed, committed=len(orders), clean_after_s=round(clean, 1))
    modes = {number: mode for number, mode, _ in orders}
    missing = unfinished(orders, journal, dead)
    # One that ran and failed for good, and lies nowhere, is a failure nobody will see.
    gone = {n for n in missing if modes[n] == "dead" and journal.starts.get(n)}
    found.dead_without_letter = len(gone)
    found.lost = len(missing) - len(gone)
    found.rolled_back_run = len(journal.starts.keys() - modes.keys())
    found.poisoned = Counter(modes.values())["poison"]
    for number, starts in journal.starts.items():
        mode = modes.get(number)
        if mode is not None and mode != "poison":
            found.second_runs += max(len(starts) - _STARTS.get(mode, 1), 0)
    return found
