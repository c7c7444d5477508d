"""Reports and who gets them by mail."""

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from notifications.models import Channel


class ReportState(models.TextChoices):
    """How far a report is."""

    WAITING = "waiting", _("waiting")
    READY = "ready", _("ready")


class Report(models.Model):
    """Figures of a period as CSV and PDF. Only `orders.reports` writes it."""

    id = models.BigAutoField(primary_key=True)
    first_day = models.DateField(_("first day"))
    last_day = models.DateField(_("last day"))
    is_daily = models.BooleanField(_("daily report"), default=False, editable=False)
    state = models.CharField(
        _("state"), max_length=10, choices=ReportState, default=ReportState.WAITING, editable=False
    )
    csv = models.FileField(_("CSV"), upload_to="reports/", blank=True, editable=False)
    pdf = models.FileField(_("PDF"), upload_to="reports/", blank=True, editable=False)
    summary = models.JSONField(_("summary"), default=dict, editable=False)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("requested by"),
    )
    requested_at = models.DateTimeField(_("requested"), auto_now_add=True)
    ready_at = models.DateTimeField(_("finished"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("report")
        verbose_name_plural = _("reports")
        default_permissions = ("view", "add")
        permissions = [("download_report", "Can download reports")]
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(last_day__gte=F("first_day")), name="orders_report_period_valid"
            ),
            models.CheckConstraint(
                condition=Q(state__in=ReportState.values), name="orders_report_state_valid"
            ),
            models.UniqueConstraint(
                fields=["first_day"], condition=Q(is_daily=True), name="orders_report_daily_once"
            ),
        ]

    def __str__(self) -> str:
        if self.first_day == self.last_day:
            return str(_("Report of %(day)s") % {"day": self.first_day})
        return str(
            _("Report of %(first)s to %(last)s") % {"first": self.first_day, "last": self.last_day}
        )


class Subscriber(models.Model):
    """Somebody of the staff who is told by e-mail: of reports, of drifts."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=200)
    email = models.EmailField(_("e-mail"), unique=True)
    wants_reports = models.BooleanField(_("reports"), default=True)
    wants_drifts = models.BooleanField(_("credit drifts"), default=True)

    class Meta:
        verbose_name = _("subscriber")
        verbose_name_plural = _("subscribers")

    def __str__(self) -> str:
        return self.name

    def notification_name(self) -> str:
        """Return how messages address the person."""
        return self.name

    def notification_address(self, channel: "Channel") -> str:
        """Return the e-mail address; there is no other way."""
        return self.email
