"""What a worker process measures of itself: its recorder's batches, and waits for rates.

The counts begin at 0 with the process. They are shown in its row of the registry, and added to
those of all ended processes when the row goes, in one transaction: so the sum over both never
falls, whatever processes come and go.
"""

import threading
from bisect import bisect_left
from typing import Any

#: Upper bounds of the buckets; a last bucket takes what is more.
BATCH_BOUNDS = (1, 3, 10, 30, 100, 300)
LAG_BOUNDS_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

#: As it is kept: a histogram is {"buckets": […], "sum": …}; limited is {queue: [waits, seconds]}.
Counts = dict[str, Any]


def nothing() -> Counts:
    """Return counts of nothing."""
    return {
        "batch": {"buckets": [0] * (len(BATCH_BOUNDS) + 1), "sum": 0},
        "lag": {"buckets": [0] * (len(LAG_BOUNDS_SECONDS) + 1), "sum": 0.0},
        "limited": {},
    }


def add(total: Counts, more: Counts) -> Counts:
    """Return the sum of two counts; what either lacks counts as nothing."""
    found = nothing()
    for counts in (total, more):
        for name in ("batch", "lag"):
            mine, theirs = found[name], counts.get(name) or {}
            buckets = theirs.get("buckets") or [0] * len(mine["buckets"])
            mine["buckets"] = [a + b for a, b in zip(mine["buckets"], buckets, strict=True)]
            mine["sum"] += theirs.get("sum", 0)
        for queue, (waits, seconds) in (counts.get("limited") or {}).items():
            before = found["limited"].get(queue, (0, 0.0))
            found["limited"][queue] = [before[0] + waits, before[1] + seconds]
    return found


class Meters:
    """The counts of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = nothing()

    def batch(self, size: int, lag_seconds: float) -> None:
        """Count a commit of outcomes.

        Args:
            size: how many.
            lag_seconds: how long ago the first of them ended.
        """
        lag = max(lag_seconds, 0.0)
        with self._lock:
            batches, lags = self._counts["batch"], self._counts["lag"]
            batches["buckets"][bisect_left(BATCH_BOUNDS, size)] += 1
            batches["sum"] += size
            lags["buckets"][bisect_left(LAG_BOUNDS_SECONDS, lag)] += 1
            lags["sum"] += lag

    def limited(self, queue: str, seconds: float) -> None:
        """Count a wait of a consumer for the queue's rate."""
        with self._lock:
            counted = self._counts["limited"].setdefault(queue, [0, 0.0])
            counted[0] += 1
            counted[1] += seconds

    def counts(self) -> Counts:
        """Return a copy of what was counted so far."""
        with self._lock:
            return add(self._counts, {})
