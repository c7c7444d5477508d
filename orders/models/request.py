"""What a vendor was asked, and what it said."""

from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .catalogue import Vendor
from .order import Order


class RequestState(models.TextChoices):
    """How far the question to one vendor is."""

    OPEN = "open", _("waiting for the answer")
    ACCEPTED = "accepted", _("confirmed")
    REFUSED = "refused", _("refused")
    SILENT = "silent", _("no answer in time")
    WITHDRAWN = "withdrawn", _("withdrawn")  # the order was cancelled or expired meanwhile


#: While a request is in one of these, the order's goods are taken out of the vendor's stock.
HOLDING = (RequestState.OPEN, RequestState.ACCEPTED)


class VendorRequestQuerySet(models.QuerySet["VendorRequest"]):
    """Rules that select requests; none of them writes."""

    def holding(self) -> "VendorRequestQuerySet":
        """Requests for which stock is reserved."""
        return self.filter(state__in=HOLDING)

    def answerable(self, now: datetime) -> "VendorRequestQuerySet":
        """Requests the vendor may still answer."""
        return self.filter(state=RequestState.OPEN, expires_at__gt=now)


class VendorRequest(models.Model):
    """One vendor was asked to deliver one order. Only `orders.workflow` changes its state."""

    id = models.BigAutoField(primary_key=True)
    order = models.ForeignKey(
        Order, models.CASCADE, related_name="requests", verbose_name=_("order")
    )
    vendor = models.ForeignKey(
        Vendor, models.PROTECT, related_name="requests", verbose_name=_("vendor")
    )
    state = models.CharField(
        _("state"), max_length=10, choices=RequestState, default=RequestState.OPEN
    )
    #: What the vendor gets for the whole order, at its prices of that moment.
    cost = models.DecimalField(_("cost"), max_digits=16, decimal_places=2)
    asked_at = models.DateTimeField(_("asked"))
    expires_at = models.DateTimeField(_("answer until"))
    answered_at = models.DateTimeField(_("answered"), null=True, blank=True)
    note = models.CharField(_("note"), max_length=300, blank=True, default="")

    objects = VendorRequestQuerySet.as_manager()

    class Meta:
        verbose_name = _("request to a vendor")
        verbose_name_plural = _("requests to vendors")
        default_permissions = ("view",)
        ordering = ("id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=RequestState.values), name="orders_request_state_valid"
            ),
            models.UniqueConstraint(fields=["order", "vendor"], name="orders_request_once"),
            # Two would take the goods out of two stocks.
            models.UniqueConstraint(
                fields=["order"],
                condition=Q(state__in=[state.value for state in HOLDING]),
                name="orders_request_one_holds_stock",
            ),
        ]
        indexes = [
            # Reliability asks for a vendor's recent answers.
            models.Index(fields=["vendor", "asked_at"], name="orders_request_recent"),
        ]

    def __str__(self) -> str:
        return f"{self.order}, {self.vendor}"

    @property
    def time_to_answer(self) -> timedelta:
        """How long the vendor had, or has, from the question on."""
        return self.expires_at - self.asked_at
