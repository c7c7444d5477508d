"""What is sold, and by whom."""

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from notifications.phones import validate_phone

validate_currency = RegexValidator(r"^[A-Z]{3}\Z", _("Enter a currency code such as EUR."))


class ProductQuerySet(models.QuerySet["Product"]):
    """Rules that select products."""

    def on_sale(self) -> "ProductQuerySet":
        """Products that can be ordered, by name."""
        return self.filter(is_active=True).order_by("name", "pk")


class Product(models.Model):
    """Something a shop can order."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=200)
    unit = models.CharField(_("unit"), max_length=50, help_text=_("For instance: box of 12"))
    price = models.DecimalField(
        _("price"), max_digits=10, decimal_places=2, validators=[MinValueValidator(0)]
    )
    currency = models.CharField(
        _("currency"), max_length=3, default="EUR", validators=[validate_currency]
    )
    is_active = models.BooleanField(_("on sale"), default=True)

    objects = ProductQuerySet.as_manager()

    class Meta:
        verbose_name = _("product")
        verbose_name_plural = _("products")
        constraints = [
            models.CheckConstraint(condition=Q(price__gte=0), name="orders_product_price_valid"),
            models.UniqueConstraint(fields=["name", "unit"], name="orders_product_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})"


class Vendor(models.Model):
    """A wholesaler that delivers orders."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=200, unique=True)
    phone = models.CharField(_("phone"), max_length=20, validators=[validate_phone])
    is_active = models.BooleanField(_("active"), default=True)

    class Meta:
        verbose_name = _("vendor")
        verbose_name_plural = _("vendors")

    def __str__(self) -> str:
        return self.name


class Offer(models.Model):
    """What a vendor asks for a product and how much it has."""

    id = models.BigAutoField(primary_key=True)
    vendor = models.ForeignKey(
        Vendor, models.CASCADE, related_name="offers", verbose_name=_("vendor")
    )
    product = models.ForeignKey(
        Product, models.CASCADE, related_name="offers", verbose_name=_("product")
    )
    price = models.DecimalField(
        _("price"), max_digits=10, decimal_places=2, validators=[MinValueValidator(0)]
    )
    stock = models.PositiveIntegerField(_("in stock"), default=0)

    class Meta:
        verbose_name = _("offer")
        verbose_name_plural = _("offers")
        constraints = [
            models.UniqueConstraint(fields=["vendor", "product"], name="orders_offer_once"),
            models.CheckConstraint(condition=Q(price__gte=0), name="orders_offer_price_valid"),
            models.CheckConstraint(condition=Q(stock__gte=0), name="orders_offer_stock_valid"),
        ]

    def __str__(self) -> str:
        return f"{self.product} · {self.vendor}"
