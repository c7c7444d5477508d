"""What staff have set for a queue at run time; it wins over the settings."""

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class Queue(models.Model):
    """One row per queue that was ever paused or limited, by hand or by its breaker."""

    class Breaker(models.TextChoices):
        """Where a queue's circuit breaker stands."""

        CLOSED = "closed", _("closed")
        OPEN = "open", _("open")
        PROBING = "probing", _("probing")

    name = models.CharField(_("queue"), primary_key=True, max_length=100)
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    #: When the pause ends by itself; None means when somebody resumes.
    paused_until = models.DateTimeField(_("paused until"), null=True, blank=True)
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("paused by"),
    )
    pause_reason = models.TextField(_("reason"), blank=True, default="")
    #: Limits that replace the policy's; None leaves the policy's.
    concurrency = models.PositiveIntegerField(_("concurrency"), null=True, blank=True)
    rate_limit = models.PositiveIntegerField(_("starts"), null=True, blank=True)
    rate_window_ms = models.PositiveIntegerField(_("per milliseconds"), null=True, blank=True)
    breaker_state = models.CharField(
        _("breaker"), max_length=10, choices=Breaker.choices, default=Breaker.CLOSED
    )
    breaker_changed_at = models.DateTimeField(_("breaker changed"), null=True, blank=True)
    breaker_cause = models.TextField(_("cause"), blank=True, default="")

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ("view",)
        permissions = [
            ("pause_queue", "Can pause and resume queues"),
            ("limit_queue", "Can change the limits of queues"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(rate_limit__isnull=True, rate_window_ms__isnull=True)
                | Q(rate_limit__gt=0, rate_window_ms__gt=0),
                name="queueadmin_queue_rate_whole",
            ),
            models.CheckConstraint(
                condition=Q(breaker_state__in=["closed", "open", "probing"]),
                name="queueadmin_queue_breaker_known",
            ),
            models.CheckConstraint(
                condition=Q(concurrency__isnull=True) | Q(concurrency__gt=0),
                name="queueadmin_queue_concurrency_positive",
            ),
        ]

    def __str__(self) -> str:
        return str(self.name)

    @property
    def breaker_stage(self) -> str:
        """What the breaker stands at and since when; counts belong to one stage."""
        since = self.breaker_changed_at
        return f"{self.breaker_state}:{since.isoformat() if since else ''}"

    def is_paused(self, at: datetime) -> bool:
        """Return whether the queue is paused at a moment."""
        if self.paused_at is None:
            return False
        return self.paused_until is None or at < self.paused_until


class Overview(Queue):
    """All queues at a glance; a proxy, so that the page has its entry in the admin."""

    class Meta:
        proxy = True
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        default_permissions = ()
