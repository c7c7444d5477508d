"""What a shop owes: its account, every entry of it, and its invoices."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from .catalogue import validate_currency
from .order import Order
from .retailer import Retailer

MAX_SCORE = 1000
CENT = Decimal("0.01")
NEW_SCORE = 600


class CreditAccountQuerySet(models.QuerySet["CreditAccount"]):
    """Rules that select accounts; none of them writes."""

    def sums(self) -> list[tuple[int, Decimal, Decimal]]:
        """Return id, balance and sum of entries, by one statement and so of one moment."""
        total = Coalesce(Sum("entries__amount"), Decimal(0), output_field=models.DecimalField())
        rows = self.annotate(total=total).values_list("pk", "balance", "total")
        # SQLite adds up binary fractions; the nearest cent is the exact sum.
        return [(pk, balance, total.quantize(CENT)) for pk, balance, total in rows]


class CreditAccount(models.Model):
    """A shop's credit. Only `orders.credit` changes balance and score."""

    id = models.BigAutoField(primary_key=True)
    retailer = models.OneToOneField(
        Retailer, models.PROTECT, related_name="credit", verbose_name=_("retailer")
    )
    currency = models.CharField(
        _("currency"), max_length=3, default="EUR", validators=[validate_currency]
    )
    limit = models.DecimalField(
        _("limit"), max_digits=12, decimal_places=2, validators=[MinValueValidator(0)]
    )
    #: What the shop owes; always the sum of the entries, or reconciliation says so.
    balance = models.DecimalField(
        _("balance"), max_digits=12, decimal_places=2, default=Decimal(0), editable=False
    )
    terms_days = models.PositiveSmallIntegerField(
        _("days to pay"), default=30, validators=[MinValueValidator(1), MaxValueValidator(365)]
    )
    score = models.PositiveSmallIntegerField(_("score"), default=NEW_SCORE, editable=False)
    scored_at = models.DateTimeField(_("scored"), null=True, blank=True, editable=False)

    objects = CreditAccountQuerySet.as_manager()

    class Meta:
        verbose_name = _("credit account")
        verbose_name_plural = _("credit accounts")
        permissions = [
            ("record_payment", "Can record payments"),
            ("correct_balance", "Can correct balances"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(limit__gte=0), name="orders_credit_limit_valid"),
            models.CheckConstraint(
                condition=Q(score__lte=MAX_SCORE), name="orders_credit_score_valid"
            ),
        ]

    def __str__(self) -> str:
        return str(_("Credit of %(name)s") % {"name": self.retailer.name})

    @property
    def available(self) -> Decimal:
        """What may still be ordered on credit."""
        return max(self.limit - self.balance, Decimal(0))


class EntryKind(models.TextChoices):
    """Why a balance changed."""

    CHARGE = "charge", _("order")
    REVERSAL = "reversal", _("order given up")
    PAYMENT = "payment", _("payment")
    CORRECTION = "correction", _("correction by staff")


class CreditEntry(models.Model):
    """One change of a balance; rows are only ever added."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(
        CreditAccount, models.PROTECT, related_name="entries", verbose_name=_("account")
    )
    kind = models.CharField(_("kind"), max_length=10, choices=EntryKind)
    #: Positive where the shop owes more.
    amount = models.DecimalField(_("amount"), max_digits=12, decimal_places=2)
    order = models.ForeignKey(
        Order,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="credit_entries",
        verbose_name=_("order"),
    )
    #: Of the form; the same payment recorded twice is one.
    token = models.UUIDField(_("form token"), null=True, blank=True, unique=True, editable=False)
    at = models.DateTimeField(_("when"))
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("account"),
    )
    user_name = models.CharField(_("by"), max_length=150, blank=True, default="")
    note = models.CharField(_("note"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("credit entry")
        verbose_name_plural = _("credit entries")
        default_permissions = ("view",)
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=EntryKind.values), name="orders_entry_kind_valid"
            ),
            # An order is charged once and given up once, whatever runs twice.
            models.UniqueConstraint(
                fields=["order", "kind"],
                condition=Q(order__isnull=False),
                name="orders_entry_once_per_order",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount}"


class InvoiceQuerySet(models.QuerySet["Invoice"]):
    """Rules that select invoices; none of them writes."""

    def open(self) -> "InvoiceQuerySet":
        """Invoices that are not paid in full, oldest due first."""
        return self.filter(settled_at__isnull=True).order_by("due_at", "pk")


class Invoice(models.Model):
    """A delivered order that has to be paid. Only `orders.credit` writes it."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(
        CreditAccount, models.PROTECT, related_name="invoices", verbose_name=_("account")
    )
    order = models.OneToOneField(
        Order, models.PROTECT, related_name="invoice", verbose_name=_("order")
    )
    amount = models.DecimalField(_("amount"), max_digits=12, decimal_places=2)
    paid = models.DecimalField(_("paid"), max_digits=12, decimal_places=2, default=Decimal(0))
    issued_at = models.DateTimeField(_("issued"))
    due_at = models.DateTimeField(_("due"))
    settled_at = models.DateTimeField(_("paid in full"), null=True, blank=True)

    objects = InvoiceQuerySet.as_manager()

    class Meta:
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")
        default_permissions = ("view",)
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(paid__gte=0, paid__lte=F("amount")), name="orders_invoice_paid_valid"
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=Q(settled_at__isnull=True),
                name="orders_invoice_open",
            ),
        ]

    def __str__(self) -> str:
        return str(_("Invoice %(id)s") % {"id": self.pk})

    @property
    def rest(self) -> Decimal:
        """What is still to be paid."""
        return self.amount - self.paid

    def is_overdue(self, now: datetime) -> bool:
        """Return whether it should have been paid by `now` and is not."""
        return self.settled_at is None and self.due_at < now


class CreditDrift(models.Model):
    """An account whose balance is not the sum of its entries; found, never repaired, here."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(
        CreditAccount, models.PROTECT, related_name="drifts", verbose_name=_("account")
    )
    balance = models.DecimalField(_("balance"), max_digits=12, decimal_places=2)
    entry_sum = models.DecimalField(_("sum of entries"), max_digits=12, decimal_places=2)
    found_at = models.DateTimeField(_("found"))
    seen_at = models.DateTimeField(_("last seen"))
    #: When a later reconciliation found the account right again.
    gone_at = models.DateTimeField(_("gone"), null=True, blank=True)

    class Meta:
        verbose_name = _("credit drift")
        verbose_name_plural = _("credit drifts")
        default_permissions = ("view",)
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(gone_at__isnull=True),
                name="orders_drift_one_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account}: {self.difference}"

    @property
    def difference(self) -> Decimal:
        """By how much the balance is too high."""
        return self.balance - self.entry_sum
