"""When an order is delivered: slots, bookings of them, and their reminders."""

from datetime import timedelta

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from .order import Order


class DeliverySlotQuerySet(models.QuerySet["DeliverySlot"]):
    """Rules that select slots; none of them writes."""

    def bookable(self) -> "DeliverySlotQuerySet":
        """Slots to come with room for one more, soonest first."""
        return self.filter(starts_at__gt=timezone.now(), booked__lt=F("capacity")).order_by(
            "starts_at", "pk"
        )


class DeliverySlot(models.Model):
    """A window of time in which some orders can be delivered."""

    id = models.BigAutoField(primary_key=True)
    starts_at = models.DateTimeField(_("from"))
    ends_at = models.DateTimeField(_("until"))
    capacity = models.PositiveSmallIntegerField(
        _("deliveries"), default=10, validators=[MinValueValidator(1)]
    )
    #: Counted by `orders.bookings` only.
    booked = models.PositiveSmallIntegerField(_("booked"), default=0, editable=False)

    objects = DeliverySlotQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery slot")
        verbose_name_plural = _("delivery slots")
        ordering = ("starts_at", "id")
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="orders_slot_times_valid"
            ),
            models.CheckConstraint(
                condition=Q(booked__gte=0, booked__lte=F("capacity")),
                name="orders_slot_booked_valid",
            ),
        ]
        indexes = [models.Index(fields=["starts_at"], name="orders_slot_by_time")]

    def __str__(self) -> str:
        start, end = timezone.localtime(self.starts_at), timezone.localtime(self.ends_at)
        return f"{date_format(start, 'D j M Y, H:i')}–{date_format(end, 'H:i')}"


class Booking(models.Model):
    """The slot of an order. Only `orders.bookings` writes it."""

    id = models.BigAutoField(primary_key=True)
    order = models.OneToOneField(
        Order, models.CASCADE, related_name="booking", verbose_name=_("order")
    )
    slot = models.ForeignKey(
        DeliverySlot, models.PROTECT, related_name="bookings", verbose_name=_("slot")
    )
    #: Counts the changes of slot; reminders of an older one are void.
    version = models.PositiveIntegerField(_("version"), default=1)
    cancelled_at = models.DateTimeField(_("cancelled"), null=True, blank=True)
    changed_at = models.DateTimeField(_("last change"))

    class Meta:
        verbose_name = _("booking")
        verbose_name_plural = _("bookings")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.order}: {self.slot}"

    @property
    def current_reminders(self) -> "models.QuerySet[BookingReminder]":
        """The reminders of the present slot."""
        return self.reminders.filter(version=self.version)


class ReminderKind(models.TextChoices):
    """How long before the slot a reminder goes out."""

    DAY = "24h", _("24 hours before")
    HOUR = "1h", _("1 hour before")
    QUARTER = "15min", _("15 minutes before")

    @property
    def before(self) -> timedelta:
        """Time between the reminder and the start of the slot."""
        return {
            ReminderKind.DAY: timedelta(hours=24),
            ReminderKind.HOUR: timedelta(hours=1),
            ReminderKind.QUARTER: timedelta(minutes=15),
        }[self]


class ReminderState(models.TextChoices):
    """What became of a reminder."""

    PLANNED = "planned", _("planned")
    SENT = "sent", _("sent")
    SKIPPED = "skipped", _("skipped")  # its time was over when the slot was booked, or too late
    VOID = "void", _("cancelled")  # the booking was moved or cancelled


class BookingReminder(models.Model):
    """One reminder of a booking; its job carries the id and looks here first."""

    id = models.BigAutoField(primary_key=True)
    booking = models.ForeignKey(
        Booking, models.CASCADE, related_name="reminders", verbose_name=_("booking")
    )
    version = models.PositiveIntegerField(_("version"))
    kind = models.CharField(_("kind"), max_length=10, choices=ReminderKind)
    state = models.CharField(
        _("state"), max_length=10, choices=ReminderState, default=ReminderState.PLANNED
    )
    due_at = models.DateTimeField(_("due"))

    class Meta:
        verbose_name = _("booking reminder")
        verbose_name_plural = _("booking reminders")
        default_permissions = ("view",)
        ordering = ("due_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["booking", "version", "kind"], name="orders_reminder_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=ReminderState.values), name="orders_reminder_state_valid"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.booking}, {self.get_kind_display()}"
