"""Who holds which message, who lives, and what was started: for brokers that do not know it.

A Redis server keeps these accounts itself. RabbitMQ has no place for them, so with it they
are rows here; see `queueadmin.ledger.holdings`.
"""

from django.db import models

from .fields import JobIdField


class Holding(models.Model):
    """One dispatch of a job that is in a worker's hands, or that nobody may take any more."""

    id = models.BigAutoField(primary_key=True)
    #: The broker's id of the message.
    parcel = models.CharField(max_length=90)
    job = JobIdField()
    dispatch = models.PositiveIntegerField()
    queue = models.CharField(max_length=100)
    #: Its holder's id; empty where the message was withdrawn or counts as lost.
    worker = models.CharField(max_length=255, blank=True, default="")
    #: Whether it counts against the queue's concurrency.
    has_slot = models.BooleanField(default=False)
    #: When it was taken, in milliseconds since 1970.
    taken_ms = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [
            # Of two copies of a message one gets the row.
            models.UniqueConstraint(fields=["job", "dispatch"], name="queueadmin_holding_once"),
        ]
        indexes = [
            models.Index(fields=["worker", "queue"], name="queueadmin_holding_by_worker"),
            models.Index(
                fields=["queue"],
                condition=models.Q(has_slot=True),
                name="queueadmin_holding_slots",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.parcel} by {self.worker or 'nobody'}"


class Heartbeat(models.Model):
    """When a worker process last said that it lives."""

    worker = models.CharField(primary_key=True, max_length=255)
    #: Milliseconds since 1970 by the database's clock.
    seen_ms = models.BigIntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.worker)


class Grant(models.Model):
    """Starts of a queue with a rate limit that were granted together."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=100)
    #: Microseconds since 1970 by the database's clock.
    at_us = models.BigIntegerField()
    starts = models.PositiveIntegerField()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["queue", "at_us"], name="queueadmin_grant_window")]

    def __str__(self) -> str:
        return f"{self.starts} starts of {self.queue}"
