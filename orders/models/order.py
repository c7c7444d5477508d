"""An order, its lines and its history."""

from decimal import Decimal
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..states import BOOKABLE, OrderState, before
from .catalogue import Product, Vendor, validate_currency
from .retailer import Retailer

if TYPE_CHECKING:
    from .booking import Booking

MAX_QUANTITY = 999


class Payment(models.TextChoices):
    """How the shop pays."""

    CASH = "cash", _("cash on delivery")
    CREDIT = "credit", _("on credit")


class OrderQuerySet(models.QuerySet["Order"]):
    """Rules that select orders; none of them writes."""

    def of(self, retailer: Retailer) -> "OrderQuerySet":
        """Return the retailer's own orders, newest first."""
        return self.filter(retailer=retailer).order_by("-pk")


class Order(models.Model):
    """What a shop ordered. Only `orders.workflow` changes its state."""

    id = models.BigAutoField(primary_key=True)
    retailer = models.ForeignKey(
        Retailer, models.PROTECT, related_name="orders", verbose_name=_("retailer")
    )
    #: Made with the form; the same form sent twice is one order.
    token = models.UUIDField(_("form token"), editable=False)
    state = models.CharField(
        _("state"), max_length=20, choices=OrderState, default=OrderState.PLACED
    )
    currency = models.CharField(_("currency"), max_length=3, validators=[validate_currency])
    #: Sum of the lines, kept because an order's prices never change.
    total = models.DecimalField(_("total"), max_digits=16, decimal_places=2)
    payment = models.CharField(_("payment"), max_length=10, choices=Payment, default=Payment.CASH)
    #: Who is asked, or has confirmed; nobody while a vendor is chosen.
    vendor = models.ForeignKey(
        Vendor,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="orders",
        verbose_name=_("vendor"),
    )
    placed_at = models.DateTimeField(_("placed"))
    #: When it expires unless it is confirmed; each request to a vendor moves it.
    expires_at = models.DateTimeField(_("expires"), default=timezone.now)
    changed_at = models.DateTimeField(_("last change"))

    objects = OrderQuerySet.as_manager()

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        permissions = [("handle_order", "Can move orders on and cancel them")]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=OrderState.values), name="orders_order_state_valid"
            ),
            models.CheckConstraint(condition=Q(total__gte=0), name="orders_order_total_valid"),
            models.CheckConstraint(
                condition=Q(payment__in=Payment.values), name="orders_order_payment_valid"
            ),
            models.UniqueConstraint(fields=["retailer", "token"], name="orders_order_once"),
        ]
        indexes = [
            # The expiry sweep's question: which orders have waited too long.
            models.Index(fields=["state", "expires_at"], name="orders_order_waiting"),
            # The reports' question: what was placed in a period.
            models.Index(fields=["placed_at"], name="orders_order_by_day"),
            models.Index(fields=["retailer", "-id"], name="orders_order_by_retailer"),
        ]

    def __str__(self) -> str:
        return str(_("Order %(id)s") % {"id": self.pk})

    @property
    def can_cancel(self) -> bool:
        """Whether the order has not gone too far to be cancelled."""
        return self.state in before(OrderState.CANCELLED)

    @property
    def current_booking(self) -> "Booking | None":
        """The delivery slot of the order, if it has one now."""
        booking = getattr(self, "booking", None)
        return booking if booking is not None and booking.cancelled_at is None else None

    @property
    def can_book(self) -> bool:
        """Whether a delivery slot may still be chosen, changed or given back."""
        return self.state in BOOKABLE


class OrderLine(models.Model):
    """A product of an order, at the price of that day."""

    id = models.BigAutoField(primary_key=True)
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines", verbose_name=_("order"))
    product = models.ForeignKey(
        Product, models.PROTECT, related_name="+", verbose_name=_("product")
    )
    #: The product's name of that day.
    name = models.CharField(_("name"), max_length=260)
    quantity = models.PositiveSmallIntegerField(_("quantity"))
    price = models.DecimalField(_("price each"), max_digits=10, decimal_places=2)

    class Meta:
        verbose_name = _("line")
        verbose_name_plural = _("lines")
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(fields=["order", "product"], name="orders_line_once"),
            models.CheckConstraint(
                condition=Q(quantity__gte=1, quantity__lte=MAX_QUANTITY),
                name="orders_line_quantity_valid",
            ),
            models.CheckConstraint(condition=Q(price__gte=0), name="orders_line_price_valid"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} of {self.name}"

    @property
    def total(self) -> Decimal:
        """Price of the whole line."""
        return self.price * self.quantity


class Reason(models.TextChoices):
    """Why a program moved an order on; kept as a word, so that each reads it in their language."""

    ACCEPTED = "accepted", _("the vendor confirms")
    REFUSED = "refused", _("the vendor refuses")
    SILENT = "silent", _("no answer in time")
    LATE = "late", _("not confirmed in time")
    NO_VENDOR = "no_vendor", _("no vendor is left")


class OrderEvent(models.Model):
    """A step in an order's life; rows are only ever added."""

    id = models.BigAutoField(primary_key=True)
    order = models.ForeignKey(
        Order, models.CASCADE, related_name="history", verbose_name=_("order")
    )
    at = models.DateTimeField(_("when"))
    #: The state the step led to.
    state = models.CharField(_("state"), max_length=20, choices=OrderState)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("account"),
    )
    #: Kept when the account is deleted; empty for a program.
    user_name = models.CharField(_("by"), max_length=150, blank=True, default="")
    reason = models.CharField(_("reason"), max_length=10, choices=Reason, blank=True, default="")
    #: Foreign words: a vendor's name, what it or staff said.
    note = models.CharField(_("note"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("history")
        ordering = ("at", "id")
        indexes = [
            # The reports' question: what became confirmed, delivered … in a period.
            models.Index(fields=["state", "at"], name="orders_event_by_day"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=OrderState.values), name="orders_event_state_valid"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_state_display()} {self.at:%Y-%m-%d %H:%M}"

    @property
    def words(self) -> str:
        """Why it was taken, and what somebody said about it."""
        return ": ".join(part for part in (self.get_reason_display(), self.note) if part)
