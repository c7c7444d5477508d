"""Counters per minute, so that no page ever counts jobs."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import DeathCause

#: Upper bounds of the buckets of times, in milliseconds; a last bucket takes what is longer.
BOUNDS_MS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
COUNTERS = ("completed", "retried", "dead", "cancelled", "returned")
SUMS = ("run_ms", "wait_ms")
RUN_BUCKETS = tuple(f"run_{number}" for number in range(len(BOUNDS_MS) + 1))
DEATHS = tuple(f"died_{cause.value}" for cause in DeathCause)
WAIT_BUCKETS = tuple(f"wait_{number}" for number in range(len(BOUNDS_MS) + 1))


class Statistic(models.Model):
    """How runs of one actor on one queue ended in a length of time, and how long they took."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=100)
    actor = models.CharField(max_length=200)
    completed = models.PositiveBigIntegerField(default=0)
    #: Attempts that failed and will be repeated.
    retried = models.PositiveBigIntegerField(default=0)
    dead = models.PositiveBigIntegerField(default=0)
    cancelled = models.PositiveBigIntegerField(default=0)
    returned = models.PositiveBigIntegerField(default=0)
    run_ms = models.FloatField(default=0)
    #: Waiting is counted for runs that ended a job: a retry's new due time hides the old one.
    wait_ms = models.FloatField(default=0)
    run_0 = models.PositiveBigIntegerField(default=0)
    run_1 = models.PositiveBigIntegerField(default=0)
    run_2 = models.PositiveBigIntegerField(default=0)
    run_3 = models.PositiveBigIntegerField(default=0)
    run_4 = models.PositiveBigIntegerField(default=0)
    run_5 = models.PositiveBigIntegerField(default=0)
    run_6 = models.PositiveBigIntegerField(default=0)
    run_7 = models.PositiveBigIntegerField(default=0)
    run_8 = models.PositiveBigIntegerField(default=0)
    run_9 = models.PositiveBigIntegerField(default=0)
    run_10 = models.PositiveBigIntegerField(default=0)
    run_11 = models.PositiveBigIntegerField(default=0)
    run_12 = models.PositiveBigIntegerField(default=0)
    wait_0 = models.PositiveBigIntegerField(default=0)
    wait_1 = models.PositiveBigIntegerField(default=0)
    wait_2 = models.PositiveBigIntegerField(default=0)
    wait_3 = models.PositiveBigIntegerField(default=0)
    wait_4 = models.PositiveBigIntegerField(default=0)
    wait_5 = models.PositiveBigIntegerField(default=0)
    wait_6 = models.PositiveBigIntegerField(default=0)
    wait_7 = models.PositiveBigIntegerField(default=0)
    wait_8 = models.PositiveBigIntegerField(default=0)
    wait_9 = models.PositiveBigIntegerField(default=0)
    wait_10 = models.PositiveBigIntegerField(default=0)
    wait_11 = models.PositiveBigIntegerField(default=0)
    wait_12 = models.PositiveBigIntegerField(default=0)

    class Meta:
        abstract = True


class MinuteStatistic(Statistic):
    """One minute; written by the recorders with the commit of the outcomes it counts."""

    minute = models.DateTimeField()
    #: Several rows per minute, chosen by worker process: recorders do not wait for each other.
    #: One, `queueadmin.ledger.counting.FOLDED`, once the minute is in the sums.
    shard = models.PositiveSmallIntegerField()

    class Meta:
        default_permissions = ()
        verbose_name = _("statistics of a minute")
        verbose_name_plural = _("statistics of minutes")
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "queue", "actor", "shard"], name="queueadmin_minute_once"
            ),
        ]
        indexes = [
            # What metrics add to the sums, and what is to be added to them.
            models.Index(
                fields=["minute"], condition=Q(shard__lt=64), name="queueadmin_minute_unfolded"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.actor} {self.minute:%Y-%m-%d %H:%M}"


class StatisticTotal(Statistic):
    """Everything since the ledger began but the latest minutes; never deleted.

    Minutes that are over are added to it by the dispatcher, deaths by cause with their commit.
    Metrics are read from it and the minutes that are not in it yet: a sum over minutes and
    hours would cost more, and fall when retention removes the oldest.
    """

    #: As in the minutes; `queueadmin.ledger.counting.FOLDED` for what was in minutes.
    shard = models.PositiveSmallIntegerField()
    #: Dead letters by cause; `dead` is their sum.
    died_attempts_exhausted = models.PositiveBigIntegerField(default=0)
    died_rejected = models.PositiveBigIntegerField(default=0)
    died_expired = models.PositiveBigIntegerField(default=0)
    died_unknown_actor = models.PositiveBigIntegerField(default=0)
    died_undecodable = models.PositiveBigIntegerField(default=0)
    died_worker_crashed = models.PositiveBigIntegerField(default=0)
    died_time_limit = models.PositiveBigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        verbose_name = _("statistics since the beginning")
        verbose_name_plural = _("statistics since the beginning")
        constraints = [
            models.UniqueConstraint(
                fields=["queue", "actor", "shard"], name="queueadmin_total_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.actor}"


class HourStatistic(Statistic):
    """One hour, made of its minutes when those are old; what is usual is read from it."""

    hour = models.DateTimeField()

    class Meta:
        default_permissions = ()
        verbose_name = _("statistics of an hour")
        verbose_name_plural = _("statistics of hours")
        constraints = [
            models.UniqueConstraint(fields=["hour", "queue", "actor"], name="queueadmin_hour_once"),
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.actor} {self.hour:%Y-%m-%d %H}"
