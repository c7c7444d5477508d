"""What staff are told of by itself: troubles, the messages about them, and daily digests."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..states import AlertKind, MessageState


class Alert(models.Model):
    """One trouble from its beginning to its end."""

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(_("alert"), max_length=20, choices=AlertKind)
    #: Which queue, group or job it is about; empty for what there is only one of.
    subject = models.CharField(_("about"), max_length=310, blank=True, default="")
    queue = models.CharField(_("queue"), max_length=100, blank=True, default="")
    #: What the last look found.
    text = models.TextField(_("what"))
    opened_at = models.DateTimeField(_("since"))
    closed_at = models.DateTimeField(_("back to normal"), null=True, blank=True)
    acknowledged_at = models.DateTimeField(_("acknowledged"), null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("acknowledged by"),
    )

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        default_permissions = ("view",)
        permissions = [("acknowledge_alert", "Can acknowledge alerts")]
        constraints = [
            # Of two that find the same trouble one opens the alert, and tells of it.
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(closed_at__isnull=True),
                name="queueadmin_alert_open_once",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=AlertKind.values), name="queueadmin_alert_kind_valid"
            ),
        ]
        indexes = [models.Index(fields=["-opened_at"], name="queueadmin_alert_recent")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.subject}".strip()


class AlertMessage(models.Model):
    """One message to one recipient about alerts that opened or closed at the same look."""

    class Channel(models.TextChoices):
        """How it is sent."""

        EMAIL = "email", _("e-mail")
        WEBHOOK = "webhook", _("webhook")

    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(_("channel"), max_length=10, choices=Channel.choices)
    target = models.CharField(_("to"), max_length=2_000)
    #: What is told, as it was when it happened; see `queueadmin.alerting`.
    events = models.JSONField(_("events"))
    state = models.CharField(
        _("state"), max_length=10, choices=MessageState, default=MessageState.WAITING
    )
    created_at = models.DateTimeField(_("made"))
    #: Nobody else tries before: somebody is at it, or it failed a moment ago.
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("message about alerts")
        verbose_name_plural = _("messages about alerts")
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=MessageState.values),
                name="queueadmin_alert_message_state_valid",
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=Q(state=MessageState.WAITING),
                name="queueadmin_message_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} to {self.target}"


class Digest(models.Model):
    """Whether somebody wants the daily digest, and for which day the last one was sent."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        primary_key=True,
        related_name="+",
        verbose_name=_("user"),
    )
    is_wanted = models.BooleanField(_("wanted"), default=True)
    last_day = models.DateField(_("last day"), null=True, blank=True)

    class Meta:
        verbose_name = _("digest")
        verbose_name_plural = _("digests")
        default_permissions = ()

    def __str__(self) -> str:
        return f"digest of {self.user_id}"
