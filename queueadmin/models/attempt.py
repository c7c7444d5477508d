"""One row per execution of a job."""

from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import Outcome
from .job import Job


class Attempt(models.Model):
    """How one execution went; written once, with the outcome, never changed."""

    id = models.BigAutoField(primary_key=True)
    # No constraint in the database: to look up the job of each attempt again took PostgreSQL 15 %
    # of all that it does for a job. An attempt is inserted only in the transaction that has just
    # updated its job and holds its row, so nobody can have deleted the job, nor can before the
    # commit; whoever deletes a job deletes the attempts of that commit with it.
    job = models.ForeignKey(
        Job,
        models.CASCADE,
        related_name="attempt_set",
        verbose_name=_("job"),
        db_constraint=False,
    )
    dispatch = models.PositiveIntegerField(_("dispatch"))
    number = models.PositiveIntegerField(_("attempt"))
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome)
    started_at = models.DateTimeField(_("started"))
    duration_ms = models.FloatField(_("duration in ms"))
    #: Wait until the next attempt, when there is one.
    delay_ms = models.BigIntegerField(_("delay in ms"), null=True, blank=True)
    worker = models.CharField(_("worker"), max_length=150, blank=True, default="")
    release = models.CharField(_("release"), max_length=100, blank=True, default="")
    error_class = models.CharField(_("error"), max_length=200, blank=True, default="")
    error_message = models.TextField(_("error text"), blank=True, default="")
    traceback = models.TextField(_("stack"), blank=True, default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=Outcome.values), name="queueadmin_attempt_outcome_valid"
            ),
        ]
        indexes = [
            # What failed lately, over all jobs; an attempt that completes costs it nothing.
            models.Index(
                fields=["outcome", "-id"],
                condition=Q(outcome__in=[Outcome.RETRYING.value, Outcome.DEAD.value]),
                name="queueadmin_attempt_failed",
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.job_id}"

    @property
    def duration(self) -> timedelta:
        """How long it ran."""
        return timedelta(milliseconds=self.duration_ms)

    @property
    def delay(self) -> timedelta | None:
        """The wait that followed it, where another attempt did."""
        return None if self.delay_ms is None else timedelta(milliseconds=self.delay_ms)
