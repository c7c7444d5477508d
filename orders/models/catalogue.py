"""What is sold, and by whom."""

from django.conf import settings
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from notifications.models import Channel
from notifications.phones import validate_phone

validate_currency = RegexValidator(r"^[A-Z]{3}\Z", _("Enter a currency code such as EUR."))


class ProductQuerySet(models.QuerySet["Product"]):
    """Rules that select products."""

    def on_sale(self) -> "ProductQuerySet":
        """Products that can be ordered, by name."""
        return self.filter(is_active=True).order_by("name", "pk")

    def with_picture(self) -> "ProductQuerySet":
        """Add `picture_id`, the newest picture that can be shown."""
        newest = Picture.objects.filter(product=models.OuterRef("pk"), state=PictureState.READY)
        return self.annotate(picture_id=models.Subquery(newest.order_by("-pk").values("pk")[:1]))


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


class PictureState(models.TextChoices):
    """How far a picture is."""

    WAITING = "waiting", _("waiting")
    READY = "ready", _("ready")
    REFUSED = "refused", _("refused")  # it is no picture, or one we do not take


class Picture(models.Model):
    """A picture of a product. Only `orders.pictures` writes it."""

    id = models.BigAutoField(primary_key=True)
    product = models.ForeignKey(
        Product, models.CASCADE, related_name="pictures", verbose_name=_("product")
    )
    #: As it was sent; empty until it is fetched, where an address was given.
    original = models.FileField(_("original"), upload_to="pictures/original/", blank=True)
    source_url = models.URLField(_("address"), max_length=500, blank=True, default="")
    small = models.FileField(_("small"), upload_to="pictures/small/", blank=True)
    large = models.FileField(_("large"), upload_to="pictures/large/", blank=True)
    state = models.CharField(
        _("state"), max_length=10, choices=PictureState, default=PictureState.WAITING
    )
    problem = models.CharField(_("problem"), max_length=300, blank=True, default="")
    added_at = models.DateTimeField(_("added"), auto_now_add=True)

    class Meta:
        verbose_name = _("picture")
        verbose_name_plural = _("pictures")
        default_permissions = ("view", "delete")
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=PictureState.values), name="orders_picture_state_valid"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.product}, #{self.pk}"


class Vendor(models.Model):
    """A wholesaler that delivers orders."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(_("name"), max_length=200, unique=True)
    phone = models.CharField(_("phone"), max_length=20, validators=[validate_phone])
    language = models.CharField(
        _("language"), max_length=10, choices=settings.LANGUAGES, default="en"
    )
    is_active = models.BooleanField(_("active"), default=True)

    class Meta:
        verbose_name = _("vendor")
        verbose_name_plural = _("vendors")

    def __str__(self) -> str:
        return self.name

    def notification_name(self) -> str:
        """Return how messages address the vendor."""
        return self.name

    def notification_address(self, channel: Channel) -> str:
        """Return the phone number; vendors are told by WhatsApp or SMS."""
        return self.phone

    def notification_language(self) -> str:
        """Return the language of messages to the vendor."""
        return self.language


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
