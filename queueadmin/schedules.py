"""What recurs: which job, and when. Pure, as the settings are read with it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from django.core.exceptions import ImproperlyConfigured

#: Occasions of `every` are counted from here, so that all schedulers agree on them.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job that is enqueued again and again.

    Args:
        actor: name of the actor whose message is enqueued.
        cron: minute, hour, day of month, month and weekday, as in a crontab and in the
            site's time zone; weekdays by name (mon … sun), since programs disagree on
            their numbers.
        every: whole seconds between occasions, counted from midnight UTC in 1970; an
            hour is on the hour. Either this or `cron`.
        args: arguments of the message.
        kwargs: named arguments of the message.

    Raises:
        ImproperlyConfigured: it has both times, none, or one that cannot be read.
    """

    actor: str
    cron: str | None = None
    every: timedelta | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise ImproperlyConfigured(
                f"The schedule of {self.actor!r} needs either cron or every, not "
                f"cron={self.cron!r} and every={self.every!r}."
            )
        if self.every is not None:
            if self.every < timedelta(seconds=1) or self.every.microseconds:
                raise ImproperlyConfigured(
                    f"every is in whole seconds, 1 or more, not {self.every!r}."
                )
            return
        if re.search(r"\d", str(self.cron).rpartition(" ")[2]):
            raise ImproperlyConfigured(
                f"Weekdays in cron are named, mon to sun, not numbered as in {self.cron!r}."
            )
        try:
            self.trigger(UTC)
        except ValueError as error:
            raise ImproperlyConfigured(f"cron={self.cron!r} cannot be read: {error}") from error

    def __str__(self) -> str:
        when = f"cron {self.cron}" if self.cron else f"every {self.every}"
        return f"{self.actor}, {when}"

    def trigger(self, timezone: tzinfo) -> BaseTrigger:
        """Return APScheduler's trigger for it.

        Args:
            timezone: the zone in which `cron` is read.
        """
        if self.every is not None:
            return IntervalTrigger(
                seconds=int(self.every.total_seconds()), start_date=EPOCH, timezone=UTC
            )
        return CronTrigger.from_crontab(self.cron, timezone=timezone)
