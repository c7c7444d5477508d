"""One row per occasion on which a schedule was due."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class ScheduleOccasion(models.Model):
    """The claim on one occasion: whoever adds the row enqueues its job, nobody else does.

    It outlives the job, or a scheduler that is late would enqueue the occasion again
    after the first job has gone by retention.
    """

    id = models.BigAutoField(primary_key=True)
    schedule = models.CharField(_("schedule"), max_length=100)
    due_at = models.DateTimeField(_("due"))
    #: Id of the job; no foreign key, the job goes first.
    job_id = models.CharField(_("job"), max_length=64)

    class Meta:
        verbose_name = _("occasion")
        verbose_name_plural = _("occasions")
        default_permissions = ("view",)
        ordering = ("-due_at",)
        constraints = [
            models.UniqueConstraint(fields=["schedule", "due_at"], name="queueadmin_occasion_once")
        ]

    def __str__(self) -> str:
        return f"{self.schedule} of {self.due_at:%Y-%m-%d %H:%M:%S}"


class ScheduleControl(models.Model):
    """What staff have set for a schedule: one row per schedule that was ever paused."""

    name = models.CharField(_("schedule"), primary_key=True, max_length=100)
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("paused by"),
    )
    pause_reason = models.TextField(_("reason"), blank=True, default="")

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        default_permissions = ("view",)
        permissions = [
            ("pause_schedule", "Can pause and resume schedules"),
            ("run_schedule", "Can run schedules now"),
        ]

    def __str__(self) -> str:
        return str(self.name)
