"""The business in the admin: people and prices are edited, orders are only read."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from notifications.models import Delivery
from queueadmin.models import Job

from .models import Offer, Order, OrderEvent, OrderLine, Product, Retailer, Vendor

if TYPE_CHECKING:
    OrderAdminBase = admin.ModelAdmin[Order]
    RetailerAdminBase = admin.ModelAdmin[Retailer]
    ProductAdminBase = admin.ModelAdmin[Product]
    VendorAdminBase = admin.ModelAdmin[Vendor]
    OfferInlineBase = admin.TabularInline[Offer, Any]
    LineInlineBase = admin.TabularInline[OrderLine, Order]
    EventInlineBase = admin.TabularInline[OrderEvent, Order]
else:
    OrderAdminBase = RetailerAdminBase = ProductAdminBase = VendorAdminBase = admin.ModelAdmin
    OfferInlineBase = LineInlineBase = EventInlineBase = admin.TabularInline

#: An order has a handful of jobs; the rest is a filter away in the list of jobs.
SHOWN_JOBS = 50


class ReadOnly:
    """Mixed into admins of rows that programs write."""

    def has_add_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody adds them by hand."""
        return False

    def has_change_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody changes them by hand."""
        return False

    def has_delete_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody removes them by hand."""
        return False


class OfferInline(OfferInlineBase):
    """Prices and stock of a vendor or product."""

    model = Offer
    extra = 0
    autocomplete_fields = ("vendor", "product")


@admin.register(Product)
class ProductAdmin(ProductAdminBase):
    """The catalogue."""

    list_display = ("name", "unit", "price", "currency", "is_active")
    list_filter = ("is_active",)
    search_fields = ("name",)
    inlines = (OfferInline,)


@admin.register(Vendor)
class VendorAdmin(VendorAdminBase):
    """Who delivers."""

    list_display = ("name", "phone", "is_active")
    search_fields = ("name",)
    inlines = (OfferInline,)


@admin.register(Retailer)
class RetailerAdmin(RetailerAdminBase):
    """Shops; staff mend wrong numbers and addresses here."""

    list_display = ("name", "phone", "email", "user")
    list_select_related = ("user",)
    search_fields = ("name", "phone", "email")
    autocomplete_fields = ("user",)
    fieldsets = (
        (None, {"fields": ("name", "user")}),
        (_("How to reach it"), {"fields": ("phone", "email")}),
        (_("Wants to be told"), {"fields": ("wants_whatsapp", "wants_email", "wants_sms")}),
    )


class LineInline(ReadOnly, LineInlineBase):
    """What was ordered."""

    model = OrderLine
    fields = ("name", "quantity", "price", "line_total")
    readonly_fields = fields

    @admin.display(description=_("total"))
    def line_total(self, line: OrderLine) -> str:
        """Show the price of the whole line."""
        return str(line.total)


class EventInline(ReadOnly, EventInlineBase):
    """What happened to the order."""

    model = OrderEvent
    fields = ("at", "state", "user_name", "note")
    readonly_fields = fields


@admin.register(Order)
class OrderAdmin(ReadOnly, OrderAdminBase):
    """Orders with their history, messages and jobs."""

    change_form_template = "admin/orders/order/change_form.html"
    list_display = ("__str__", "retailer", "state", "amount", "placed_at")
    list_filter = ("state", "placed_at")
    list_select_related = ("retailer",)
    search_fields = ("=id", "retailer__name")
    ordering = ("-id",)
    fields = ("retailer", "state", "amount", "placed_at", "changed_at")
    inlines = (LineInline, EventInline)

    @admin.display(description=_("total"), ordering="total")
    def amount(self, order: Order) -> str:
        """Show the total with its currency."""
        return f"{order.total} {order.currency}"

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Add the order's messages and jobs, as far as the user may see them."""
        order = self.get_object(request, object_id) if object_id else None
        context = dict(extra_context or {})
        if order is not None and request.user.has_perm("notifications.view_delivery"):
            context["deliveries"] = Delivery.objects.about(order).order_by("pk")
        if order is not None and request.user.has_perm("queueadmin.view_job"):
            jobs = Job.objects.about(order).for_list().order_by("enqueued_at")
            context["jobs"] = jobs[:SHOWN_JOBS]
        return super().changeform_view(request, object_id, form_url, context)
