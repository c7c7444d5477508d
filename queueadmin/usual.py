"""What is usual, and whether what happens now is not; arithmetic without a database.

Docs/decisions/0022 says why it is this arithmetic. In short: an alarm needs even the
lowest value that the present sample makes plausible to lie above the highest that the same
hour of past days does. Medians, because an outage of last week must not be usual this week.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .statistics import percentile

#: Standard errors to either side: of independent looks at what is usual, 1 in 700 lies beyond.
Z = 3.0
#: Fewer in the present say nothing.
LEAST_ATTEMPTS, LEAST_FAILURES, LEAST_RUNS = 20, 5, 20
#: Past hours with fewer are left out; with fewer such hours nothing is usual yet.
LEAST_PAST, LEAST_DAYS, LEAST_WEEKS = 5, 5, 3
#: Spreads above the median that happen on good days.
_SPREADS = 4.0
#: Turns a median distance from the median into a standard deviation, were it a normal one.
_MAD_TO_SIGMA = 1.4826
#: Share of the worst past hours that does not count as usual.
_TRIM = 0.1
#: What is not worth a message: a rise by one in a hundred, or to half as long again.
_RATE_MARGIN, _TIME_MARGIN = 0.01, 1.5
#: Milliseconds; runs that are shorter may vary as they like.
_SHORT_MS = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in a length of time."""

    attempts: int
    failed: int
    #: Runs by length, in the buckets of the statistics.
    runs: Sequence[int] = ()
    #: Whether it is of the same day of the week as the present.
    is_same_weekday: bool = False

    @property
    def rate(self) -> float:
        """Share that failed."""
        return self.failed / self.attempts if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A present value above what is usual.

    `is_certain` says that it is by more than chance; otherwise it may well be nothing, but
    it is not back to normal either.
    """

    value: float
    low: float
    high: float
    is_certain: bool


def wilson(failed: int, attempts: int, z: float = Z) -> tuple[float, float]:
    """Return the lowest and highest rate that such a sample makes plausible."""
    if not attempts:
        return 0.0, 1.0
    rate, square = failed / attempts, z * z
    middle = rate + square / (2 * attempts)
    reach = z * math.sqrt(rate * (1 - rate) / attempts + square / (4 * attempts * attempts))
    whole = 1 + square / attempts
    return max((middle - reach) / whole, 0.0), min((middle + reach) / whole, 1.0)


def highest(values: Sequence[float]) -> float:
    """Return what values like these do not exceed on good days: robust against a few bad ones."""
    middle = median(values)
    return middle + _SPREADS * _MAD_TO_SIGMA * median(abs(value - middle) for value in values)


def failures(present: Sample, past: Sequence[Sample]) -> Finding | None:
    """Return the share of failures, if it is above what is usual; None also when too few say so."""
    days = [day for day in past if day.attempts >= LEAST_PAST]
    if len(days) < LEAST_DAYS or not present.failed:
        return None
    weeks = [day for day in days if day.is_same_weekday]
    limit = _highest_rate(days)
    if len(weeks) >= LEAST_WEEKS:
        # What happens each Sunday is no drift, and neither is a Sunday like any other day.
        limit = max(limit, _highest_rate(weeks))
    limit = min(limit + _RATE_MARGIN, 1.0)
    if present.rate <= limit:
        return None
    low, high = _shown([day.rate for day in days])
    is_enough = present.attempts >= LEAST_ATTEMPTS and present.failed >= LEAST_FAILURES
    is_certain = is_enough and wilson(present.failed, present.attempts)[0] > limit
    return Finding(present.rate, low, high, is_certain)


def _highest_rate(days: Sequence[Sample]) -> float:
    """Return the rate that hours like these do not exceed.

    Small hours have rates like 0 or 20 per cent and a median of 0; taken together they say
    what their rate is, and how well they know it.
    """
    kept = sorted(days, key=lambda day: day.rate)[: len(days) - int(len(days) * _TRIM)]
    together = wilson(sum(day.failed for day in kept), sum(day.attempts for day in kept))
    return max(highest([day.rate for day in days]), together[1])


def run_times(present: Sample, past: Sequence[Sample]) -> Finding | None:
    """Return the median run time in ms, if it is above what is usual; None when too few say so.

    Compared by ratio: 2 s instead of 1 s is as unusual as 20 ms instead of 10.
    """
    days = [day for day in past if sum(day.runs) >= LEAST_PAST]
    number = sum(present.runs)
    if len(days) < LEAST_DAYS or not number:
        return None
    weeks = [day for day in days if day.is_same_weekday]
    limit = highest([_log_median(day.runs) for day in days])
    if len(weeks) >= LEAST_WEEKS:
        limit = max(limit, highest([_log_median(day.runs) for day in weeks]))
    limit_ms = max(math.exp(limit) * _TIME_MARGIN, _SHORT_MS)
    value = _at(present.runs, 0.5)
    if value <= limit_ms:
        return None
    low, high = _shown([math.exp(_log_median(day.runs)) for day in days])
    # The run that lies so far below the middle is the lowest plausible median.
    lowest = _at(present.runs, max(0.5 - Z / (2 * math.sqrt(number)), 0.0))
    return Finding(value, low, high, number >= LEAST_RUNS and lowest > limit_ms)


def _log_median(runs: Sequence[int]) -> float:
    return math.log(max(_at(runs, 0.5), 0.1))


def _at(runs: Sequence[int], share: float) -> float:
    found = percentile(runs, share)
    return found.total_seconds() * 1_000 if found is not None else 0.0


def ranges(
    past: Sequence[Sample],
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return between what the share of failures, and the median run time in ms, usually lie.

    Each is None where too few hours say so.
    """
    days = [day for day in past if day.attempts >= LEAST_PAST]
    timed = [day for day in days if sum(day.runs) >= LEAST_PAST]
    return (
        _shown([day.rate for day in days]) if len(days) >= LEAST_DAYS else None,
        _shown([_at(day.runs, 0.5) for day in timed]) if len(timed) >= LEAST_DAYS else None,
    )


def _shown(values: Sequence[float]) -> tuple[float, float]:
    """Return from where to where most values lie: the worst and best tenth are left out."""
    ordered = sorted(values)
    left = int(len(ordered) * _TRIM)
    return ordered[left], ordered[len(ordered) - 1 - left]
