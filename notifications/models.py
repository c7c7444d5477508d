"""What was to be told to whom, by which channel, and what became of it."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from queueadmin.models.job import subject_key


class Channel(models.TextChoices):
    """A way to reach a recipient."""

    WHATSAPP = "whatsapp", _("WhatsApp")
    EMAIL = "email", _("e-mail")
    SMS = "sms", _("SMS")


class Event(models.TextChoices):
    """What recipients are told about; templates are named after it."""

    ORDER_CONFIRMED = "order_confirmed", _("order confirmed")


class DeliveryState(models.TextChoices):
    """How far a delivery is."""

    PENDING = "pending", _("pending")  # not tried yet
    SENDING = "sending", _("sending")  # claimed by a run that has not recorded its end
    SENT = "sent", _("sent")  # the provider took it
    FAILED = "failed", _("failed")  # certainly not delivered; may be tried again
    UNKNOWN = "unknown", _("unknown")  # perhaps delivered; a person decides


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Rules that select deliveries; none of them writes."""

    def about(self, subject: models.Model) -> "DeliveryQuerySet":
        """Deliveries that tell about `subject`."""
        return self.filter(subject=subject_key(subject))


class Delivery(models.Model):
    """One message to one recipient by one channel about one event; sent at most once.

    Only `notifications.delivery` changes its state.
    """

    id = models.BigAutoField(primary_key=True)
    #: Handed to the provider, so that its receipts can be matched; tells outsiders nothing.
    reference = models.UUIDField(_("reference"), default=uuid.uuid4, unique=True, editable=False)
    event = models.CharField(_("event"), max_length=50, choices=Event)
    #: The business object it is about, "app.model:pk".
    subject = models.CharField(_("subject"), max_length=150)
    #: Whom it is for, "app.model:pk"; the address is read from there at send time.
    recipient = models.CharField(_("recipient"), max_length=150)
    #: The recipient's name when the delivery was planned, for lists.
    recipient_name = models.CharField(_("recipient's name"), max_length=200)
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    context = models.JSONField(_("context"), default=dict)
    state = models.CharField(
        _("state"), max_length=10, choices=DeliveryState, default=DeliveryState.PENDING
    )
    #: The address of the last attempt.
    address = models.CharField(_("address"), max_length=254, blank=True, default="")
    #: The run that may record the outcome.
    claim = models.UUIDField(_("claim"), null=True, blank=True, editable=False)
    claimed_at = models.DateTimeField(_("last tried"), null=True, blank=True)
    provider = models.CharField(_("provider"), max_length=30, blank=True, default="")
    provider_message_id = models.CharField(
        _("provider's message id"), max_length=255, blank=True, default=""
    )
    error_code = models.CharField(_("error code"), max_length=50, blank=True, default="")
    error_text = models.TextField(_("error"), blank=True, default="")
    created_at = models.DateTimeField(_("planned"), auto_now_add=True)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        default_permissions = ("view",)
        permissions = [("resend_delivery", "Can allow a delivery of unknown outcome to be resent")]
        ordering = ("-id",)
        constraints = [
            # Subject first: the same index answers "what was told about this order".
            models.UniqueConstraint(
                fields=["subject", "recipient", "event", "channel"],
                name="notifications_delivery_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=DeliveryState.values),
                name="notifications_delivery_state_valid",
            ),
            models.CheckConstraint(
                condition=Q(channel__in=Channel.values),
                name="notifications_delivery_channel_valid",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="notifications_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.get_event_display()}, {self.get_channel_display()}: {self.recipient_name}"
