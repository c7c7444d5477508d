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

    ORDER_PLACED = "order_placed", _("order received")
    ORDER_CONFIRMED = "order_confirmed", _("order confirmed")
    ORDER_OUT_FOR_DELIVERY = "order_out_for_delivery", _("order out for delivery")
    ORDER_DELIVERED = "order_delivered", _("order delivered")
    ORDER_CANCELLED = "order_cancelled", _("order cancelled")
    ORDER_EXPIRED = "order_expired", _("order expired")
    ORDER_UNFULFILLABLE = "order_unfulfillable", _("order cannot be delivered")
    VENDOR_REQUEST = "vendor_request", _("request to a vendor")
    VENDOR_RELEASED = "vendor_released", _("request withdrawn")
    BOOKING_REMINDER = "booking_reminder", _("delivery reminder")
    PAYMENT_DUE = "payment_due", _("payment due")
    PAYMENT_OVERDUE = "payment_overdue", _("payment overdue")
    BALANCE_ANSWER = "balance_answer", _("answer to a balance inquiry")
    REPORT_READY = "report_ready", _("report ready")
    CREDIT_DRIFT = "credit_drift", _("credit drift found")

    @property
    def is_urgent(self) -> bool:
        """Whether it cannot wait for the end of quiet hours."""
        return self in _URGENT

    @property
    def topic(self) -> "Topic":
        """What people choose or refuse together."""
        return _TOPICS.get(self, Topic.ORDERS)


class Topic(models.TextChoices):
    """Events that people want or do not want together."""

    ORDERS = "orders", _("my orders")
    REMINDERS = "reminders", _("delivery reminders")
    PAYMENTS = "payments", _("payments")


_TOPICS = {
    Event.BOOKING_REMINDER: Topic.REMINDERS,
    Event.PAYMENT_DUE: Topic.PAYMENTS,
    Event.PAYMENT_OVERDUE: Topic.PAYMENTS,
    Event.BALANCE_ANSWER: Topic.PAYMENTS,
}
#: Somebody waits for these, or they are worth nothing later.
_URGENT = frozenset(
    {
        Event.ORDER_OUT_FOR_DELIVERY,
        Event.VENDOR_REQUEST,
        Event.VENDOR_RELEASED,
        Event.BOOKING_REMINDER,
        Event.BALANCE_ANSWER,
    }
)


class DeliveryState(models.TextChoices):
    """How far a delivery is."""

    PENDING = "pending", _("pending")  # not tried yet
    SENDING = "sending", _("sending")  # claimed by a run that has not recorded its end
    SENT = "sent", _("sent")  # the provider took it
    FAILED = "failed", _("failed")  # certainly not delivered; may be tried again
    UNKNOWN = "unknown", _("unknown")  # perhaps delivered; a person decides
    SUPPRESSED = "suppressed", _("not wanted")  # the recipient opted out before it was sent


class ReceiptStatus(models.TextChoices):
    """What a provider said later about a message it took; see `notifications.receipts`."""

    ACCEPTED = "accepted", _("on its way")
    DELIVERED = "delivered", _("delivered")
    READ = "read", _("read")
    FAILED = "failed", _("not delivered")

    @property
    def rank(self) -> int:
        """Receipts come in any order; the one that says most stays."""
        order = (self.ACCEPTED, self.FAILED, self.DELIVERED, self.READ)
        return order.index(self) + 1


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Rules that select deliveries; none of them writes."""

    def about(self, subject: models.Model) -> "DeliveryQuerySet":
        """Deliveries that tell about `subject`."""
        return self.filter(subject=subject_key(subject))

    def to(self, recipient: models.Model) -> "DeliveryQuerySet":
        """Deliveries for one recipient."""
        return self.filter(recipient=subject_key(recipient))


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
    #: Tells apart what happens again to the same subject, such as its second reminder.
    occasion = models.CharField(_("occasion"), max_length=60, blank=True, default="")
    #: The delivery that did not arrive and is sent once more by this one.
    resends = models.OneToOneField(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="successor",
        verbose_name=_("sends again"),
    )
    language = models.CharField(_("language"), max_length=10, default="en")
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

    #: What the provider said later, with `receipt_rank` so that a late word changes nothing.
    receipt = models.CharField(
        _("receipt"), max_length=10, choices=ReceiptStatus, blank=True, default=""
    )
    receipt_rank = models.PositiveSmallIntegerField(default=0, editable=False)
    receipt_at = models.DateTimeField(_("receipt of"), null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        default_permissions = ("view",)
        permissions = [
            ("resend_delivery", "Can resend a delivery of unknown outcome or not delivered")
        ]
        ordering = ("-id",)
        constraints = [
            # Subject first: the same index answers "what was told about this order".
            models.UniqueConstraint(
                fields=["subject", "recipient", "event", "channel", "occasion"],
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
            # A receipt without our reference is matched by the provider's id.
            models.Index(
                fields=["provider_message_id"],
                condition=~Q(provider_message_id=""),
                name="notifications_by_provider_id",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_event_display()}, {self.get_channel_display()}: {self.recipient_name}"


class Receipt(models.Model):
    """One word of a provider about one message; rows are only ever added."""

    id = models.BigAutoField(primary_key=True)
    #: What makes it the same receipt when it comes again.
    key = models.CharField(_("key"), max_length=64, unique=True, editable=False)
    delivery = models.ForeignKey(
        Delivery, models.CASCADE, related_name="receipts", verbose_name=_("delivery")
    )
    provider = models.CharField(_("provider"), max_length=30)
    status = models.CharField(_("status"), max_length=10, choices=ReceiptStatus)
    #: The provider's own word and code for it.
    said = models.CharField(_("provider says"), max_length=500, blank=True, default="")
    at = models.DateTimeField(_("when"))
    received_at = models.DateTimeField(_("received"), auto_now_add=True)

    class Meta:
        verbose_name = _("receipt")
        verbose_name_plural = _("receipts")
        default_permissions = ("view",)
        ordering = ("at", "id")

    def __str__(self) -> str:
        return f"{self.get_status_display()} {self.at:%Y-%m-%d %H:%M:%S}"


class Incoming(models.Model):
    """A message somebody sent us by WhatsApp; taken once, however often it is reported."""

    id = models.BigAutoField(primary_key=True)
    provider_message_id = models.CharField(_("provider's message id"), max_length=255, unique=True)
    sender = models.CharField(_("from"), max_length=20)
    text = models.CharField(_("text"), max_length=1000, blank=True, default="")
    at = models.DateTimeField(_("when"))
    received_at = models.DateTimeField(_("received"), auto_now_add=True)

    class Meta:
        verbose_name = _("incoming message")
        verbose_name_plural = _("incoming messages")
        default_permissions = ("view",)
        ordering = ("-id",)
        indexes = [
            # Free text may be sent within 24 hours of somebody's last message.
            models.Index(fields=["sender", "-at"], name="notifications_incoming_last"),
        ]

    def __str__(self) -> str:
        return f"{self.sender} {self.at:%Y-%m-%d %H:%M}"


class OptOut(models.Model):
    """An address that must not be written to any more by a channel."""

    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)
    address = models.CharField(_("address"), max_length=254)
    #: Who told us: "link", "message", or a provider's name.
    source = models.CharField(_("told by"), max_length=30)
    at = models.DateTimeField(_("since"), auto_now_add=True)

    class Meta:
        verbose_name = _("opt-out")
        verbose_name_plural = _("opt-outs")
        default_permissions = ("view", "delete")
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["channel", "address"], name="notifications_optout_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_channel_display()}: {self.address}"


class Refusal(models.Model):
    """A recipient does not want a topic by a channel; without a row it does."""

    id = models.BigAutoField(primary_key=True)
    recipient = models.CharField(_("recipient"), max_length=150)
    topic = models.CharField(_("topic"), max_length=20, choices=Topic)
    channel = models.CharField(_("channel"), max_length=10, choices=Channel)

    class Meta:
        verbose_name = _("refusal")
        verbose_name_plural = _("refusals")
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(
                fields=["recipient", "topic", "channel"], name="notifications_refusal_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient}: {self.topic}, {self.channel}"


class Pause(models.Model):
    """A provider takes nothing until then: from us, or from us for one recipient."""

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(_("provider"), max_length=30)
    #: Empty for everybody.
    address = models.CharField(_("address"), max_length=254, blank=True, default="")
    until = models.DateTimeField(_("until"))

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "address"], name="notifications_pause_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.address}"
