"""How a queue behaves: attempts, delays between them, limits and weight."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum

from django.core.exceptions import ImproperlyConfigured

#: No delay is longer; a jump in the backoff formula must not leave the calendar.
MAX_DELAY_MS = 365 * 24 * 3600 * 1000


class Weight(IntEnum):
    """Share of the workers a queue gets when several have work; nobody starves."""

    HIGH = 8
    MEDIUM_HIGH = 4
    MEDIUM = 2
    LOW = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` starts in any window of `window_ms` milliseconds."""

    limit: int
    window_ms: int

    def __post_init__(self) -> None:
        if self.limit < 1 or self.window_ms < 1:
            raise ImproperlyConfigured(
                f"A rate needs a positive limit and window, not {self.limit} per {self.window_ms} ms."
            )

    def __str__(self) -> str:
        unit = {1000: "s", 60_000: "min"}.get(self.window_ms, f"{self.window_ms} ms")
        return f"{self.limit} / {unit}"


def per_second(limit: int) -> Rate:
    """At most `limit` starts in any second."""
    return Rate(limit, 1000)


def per_minute(limit: int) -> Rate:
    """At most `limit` starts in any minute."""
    return Rate(limit, 60_000)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between attempts, exact unless jitter is asked for.

    `delays_ms` are the waits before attempts 2, 3, 4 …; after the last one the wait is
    multiplied by `factor` each time (1 keeps it), up to `max_ms`. `jitter` is the share
    of each wait that is random: 0.2 waits between 80 % and 100 % of it.
    """

    delays_ms: tuple[int, ...]
    factor: int = 1
    max_ms: int = MAX_DELAY_MS
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not self.delays_ms or min(self.delays_ms) < 0 or self.factor < 1:
            raise ImproperlyConfigured(
                f"A backoff needs delays of 0 or more and a factor of 1 or more, not {self!r}."
            )
        if not 0 <= self.jitter <= 1:
            raise ImproperlyConfigured(f"Jitter is a share between 0 and 1, not {self.jitter!r}.")

    def delay_ms(self, failures: int) -> int:
        """Return the wait in milliseconds after the `failures`-th failed attempt (1, 2, …).

        Raises:
            ValueError: `failures` is less than 1.
        """
        if failures < 1:
            raise ValueError(f"failures counts from 1, not {failures}")
        last = len(self.delays_ms) - 1
        delay = self.delays_ms[min(failures - 1, last)]
        # 64 doublings leave any calendar; the bound keeps the integer small.
        delay *= int(self.factor ** min(max(failures - 1 - last, 0), 64))
        delay = min(delay, self.max_ms)
        if self.jitter:
            delay = round(delay * (1 - random.uniform(0, self.jitter)))  # noqa: S311
        return delay


def exponential(
    seconds: float, *, factor: int = 2, max_seconds: float = MAX_DELAY_MS / 1000, jitter: float = 0
) -> Backoff:
    """Wait `seconds`, then `factor` times as long each time: exponential(5) is 5, 10, 20 … s."""
    return Backoff((round(seconds * 1000),), factor, round(max_seconds * 1000), jitter)


def fixed(seconds: float, *, jitter: float = 0) -> Backoff:
    """Wait `seconds` before every further attempt."""
    return Backoff((round(seconds * 1000),), jitter=jitter)


def explicit(seconds: Sequence[float], *, jitter: float = 0) -> Backoff:
    """Wait as listed: explicit([5, 15, 45]); the last one repeats."""
    return Backoff(tuple(round(value * 1000) for value in seconds), jitter=jitter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a queue pauses itself because what its jobs need is out of order.

    Args:
        share: of the recent attempts this share must have failed for one cause, 0 to 1.
        minimum: fewer attempts than this say nothing.
        window: what counts as recent, in seconds.
        probe_every: seconds until one job is let through to see whether it works again.

    Raises:
        ImproperlyConfigured: a value is out of its range.
    """

    share: float = 0.5
    minimum: int = 20
    window: float = 60
    probe_every: float = 30

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ImproperlyConfigured(f"share is above 0 and at most 1, not {self.share}.")
        if self.minimum < 1:
            raise ImproperlyConfigured(f"minimum is 1 attempt or more, not {self.minimum}.")
        if self.window <= 0 or self.probe_every <= 0:
            raise ImproperlyConfigured("window and probe_every are in seconds above 0.")


LONGEST_KEPT = timedelta(days=100 * 365)


def as_hours(keep: timedelta | float) -> timedelta:
    """Return a time to keep something, which may be given as hours."""
    if isinstance(keep, timedelta):
        return keep
    try:
        return timedelta(hours=keep)
    except (OverflowError, ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"{keep!r} is no number of hours.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for every job of a queue unless its actor or message says otherwise.

    Args:
        attempts: executions in all, the first included; None retries without end.
        backoff: the waits between them.
        time_limit: seconds one execution may take.
        concurrency: jobs of the queue that may run at once in the whole fleet.
        rate: starts allowed in a window of time in the whole fleet.
        weight: share of the workers when several queues have work.
        breaker: when the queue pauses itself; None never.
        keep_completed: how long a completed job is kept, in hours or as a timedelta; None is
            what the settings say.
        keep_cancelled: the same of a cancelled one.
        keep_dead: the same of a dead one, from the time its dead letter was closed.

    Raises:
        ImproperlyConfigured: a value is out of its range.
    """

    attempts: int | None = 3
    backoff: Backoff = field(default_factory=lambda: exponential(5))
    time_limit: float = 600
    concurrency: int | None = None
    rate: Rate | None = None
    weight: Weight = Weight.MEDIUM
    breaker: Breaker | None = None
    keep_completed: timedelta | float | None = None
    keep_cancelled: timedelta | float | None = None
    keep_dead: timedelta | float | None = None

    def __post_init__(self) -> None:
        for name in ("keep_completed", "keep_cancelled", "keep_dead"):
            keep = getattr(self, name)
            if keep is not None and not timedelta(0) <= as_hours(keep) <= LONGEST_KEPT:
                raise ImproperlyConfigured(
                    f"{name} is in hours, or a timedelta, of 0 to 100 years, not {keep!r}."
                )
        if self.attempts is not None and self.attempts < 1:
            raise ImproperlyConfigured(f"attempts counts the first one too, not {self.attempts}.")
        if self.time_limit <= 0:
            raise ImproperlyConfigured(f"time_limit is in seconds above 0, not {self.time_limit}.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ImproperlyConfigured(f"concurrency is 1 or more, not {self.concurrency}.")

    def schedule_ms(self) -> list[int]:
        """Return the waits between this policy's attempts in milliseconds, without jitter."""
        exact = Backoff(self.backoff.delays_ms, self.backoff.factor, self.backoff.max_ms)
        return [exact.delay_ms(failures) for failures in range(1, self.attempts or 1)]
