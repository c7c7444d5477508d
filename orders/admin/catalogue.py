"""Products with their pictures, vendors, shops."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import pictures, routing
from ..exceptions import PictureRefused
from ..models import Offer, Picture, Product, Retailer, Vendor
from .base import ReadOnly

if TYPE_CHECKING:
    RetailerAdminBase = admin.ModelAdmin[Retailer]
    ProductAdminBase = admin.ModelAdmin[Product]
    VendorAdminBase = admin.ModelAdmin[Vendor]
    OfferInlineBase = admin.TabularInline[Offer, Any]
    PictureInlineBase = admin.TabularInline[Picture, Product]
    ProductFormBase = forms.ModelForm[Product]
else:
    RetailerAdminBase = ProductAdminBase = VendorAdminBase = admin.ModelAdmin
    OfferInlineBase = PictureInlineBase = admin.TabularInline
    ProductFormBase = forms.ModelForm


class ProductForm(ProductFormBase):
    """A product, and a new picture of it: a file, or an address to fetch it from."""

    new_picture = forms.FileField(
        label=_("new picture"), required=False, help_text=_("JPEG, PNG or WebP, up to 5 MB.")
    )
    picture_url = forms.URLField(
        label=_("or its address"), required=False, max_length=500, assume_scheme="https"
    )

    class Meta:
        model = Product
        fields = ("name", "unit", "price", "currency", "is_active")

    def clean_new_picture(self) -> Any:
        """Refuse what is no picture while the person who chose it is still here."""
        file = self.cleaned_data["new_picture"]
        if file:
            try:
                pictures.require_picture(file.read(pictures.MAX_BYTES + 1))
            except PictureRefused as refusal:
                raise forms.ValidationError(str(refusal), code="picture") from refusal
            file.seek(0)
        return file


class OfferInline(OfferInlineBase):
    """Prices and stock of a vendor or product."""

    model = Offer
    extra = 0
    autocomplete_fields = ("vendor", "product")


class PictureInline(ReadOnly, PictureInlineBase):
    """The product's pictures; the newest that is ready is shown."""

    model = Picture
    fields = ("added_at", "state", "problem", "source_url")
    readonly_fields = fields

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Pictures may be removed by who may remove pictures."""
        return request.user.has_perm("orders.delete_picture")


@admin.register(Product)
class ProductAdmin(ProductAdminBase):
    """The catalogue."""

    form = ProductForm
    list_display = ("name", "unit", "price", "currency", "is_active")
    list_filter = ("is_active",)
    search_fields = ("name",)
    inlines = (PictureInline, OfferInline)

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        """Save the product, and hand a new picture on."""
        super().save_model(request, obj, form, change)
        if file := form.cleaned_data.get("new_picture"):
            pictures.add(obj, file)
            self.message_user(request, _("The picture is being resized."), messages.INFO)
        elif url := form.cleaned_data.get("picture_url"):
            pictures.add_from(obj, url)
            self.message_user(request, _("The picture is being fetched."), messages.INFO)


@admin.register(Vendor)
class VendorAdmin(VendorAdminBase):
    """Who delivers."""

    list_display = ("name", "phone", "is_active")
    search_fields = ("name",)
    readonly_fields = ("reliability",)
    inlines = (OfferInline,)

    @admin.display(description=_("reliability"))
    def reliability(self, vendor: Vendor) -> Decimal | str:
        """Show the share of requests this vendor is expected to confirm."""
        return round(routing.reliability_of(vendor), 2) if vendor.pk else "–"


@admin.register(Retailer)
class RetailerAdmin(RetailerAdminBase):
    """Shops; staff mend wrong numbers and addresses here."""

    list_display = ("name", "phone", "email", "user")
    search_fields = ("name", "phone", "email")
    autocomplete_fields = ("user",)
    fieldsets = (
        (None, {"fields": ("name", "user")}),
        (_("How to reach it"), {"fields": ("phone", "email", "language")}),
        (_("Wants to be told"), {"fields": ("wants_whatsapp", "wants_email", "wants_sms")}),
        (_("Quiet hours"), {"fields": ("quiet_from", "quiet_until")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Retailer]:
        """Join the accounts the list shows."""
        return super().get_queryset(request).select_related("user")
