"""Orders in the admin: read, with everything about them; moved on and cancelled by buttons."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from notifications.models import Delivery
from queueadmin.models import Job

from .. import workflow
from ..exceptions import NotAllowedNow, NotCancellable
from ..models import BookingReminder, Order, OrderEvent, OrderLine, VendorRequest
from ..states import TRANSITIONS, OrderState
from .base import ReadOnly

if TYPE_CHECKING:
    OrderAdminBase = admin.ModelAdmin[Order]
    LineInlineBase = admin.TabularInline[OrderLine, Order]
    EventInlineBase = admin.TabularInline[OrderEvent, Order]
    RequestInlineBase = admin.TabularInline[VendorRequest, Order]
else:
    OrderAdminBase = admin.ModelAdmin
    LineInlineBase = EventInlineBase = RequestInlineBase = admin.TabularInline

#: An order has a handful of jobs; the rest is a filter away in the list of jobs.
SHOWN_JOBS = 50

#: What staff may do to an order: the state it leads to, the button's words, the use case.
STEPS: dict[str, tuple[OrderState, Any, Callable[..., None]]] = {
    "dispatch": (OrderState.OUT_FOR_DELIVERY, _("Out for delivery"), workflow.dispatch),
    "deliver": (OrderState.DELIVERED, _("Delivered"), workflow.deliver),
    "cancel": (OrderState.CANCELLED, _("Cancel order"), workflow.cancel),
}


class LineInline(ReadOnly, LineInlineBase):
    """What was ordered."""

    model = OrderLine
    fields = ("name", "quantity", "price", "line_total")
    readonly_fields = fields

    @admin.display(description=_("total"))
    def line_total(self, line: OrderLine) -> str:
        """Show the price of the whole line."""
        return str(line.total)


class RequestInline(ReadOnly, RequestInlineBase):
    """Which vendors were asked, and what they said."""

    model = VendorRequest
    fields = ("vendor", "state", "cost", "asked_at", "expires_at", "answered_at", "note")
    readonly_fields = fields


class EventInline(ReadOnly, EventInlineBase):
    """What happened to the order."""

    model = OrderEvent
    fields = ("at", "state", "user_name", "reason", "note")
    readonly_fields = fields


@admin.register(Order)
class OrderAdmin(ReadOnly, OrderAdminBase):
    """Orders with their history, messages and jobs."""

    change_form_template = "admin/orders/order/change_form.html"
    list_display = ("__str__", "retailer", "vendor", "state", "payment", "amount", "placed_at")
    list_filter = ("state", "payment", "placed_at")
    list_select_related = ("retailer", "vendor")
    show_full_result_count = False
    search_fields = ("=id", "retailer__name")
    ordering = ("-id",)
    fields = (
        "retailer",
        "vendor",
        "state",
        "payment",
        "amount",
        "placed_at",
        "changed_at",
        "expires_at",
    )
    inlines = (LineInline, RequestInline, EventInline)

    @admin.display(description=_("total"), ordering="total")
    def amount(self, order: Order) -> str:
        """Show the total with its currency."""
        return f"{order.total} {order.currency}"

    def get_urls(self) -> list[URLPattern]:
        """Add the door of the buttons."""
        view = self.admin_site.admin_view(self.step_view)
        own = path("<int:order_id>/step/<str:step>/", view, name="orders_order_step")
        return [own, *super().get_urls()]

    def step_view(self, request: HttpRequest, order_id: int, step: str) -> HttpResponse:
        """Move an order on, or cancel it."""
        if step not in STEPS:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not request.user.has_perm("orders.handle_order"):
            raise PermissionDenied
        order = get_object_or_404(Order, pk=order_id)
        target, _label, use_case = STEPS[step]
        try:
            use_case(order, by=request.user)
        except (NotAllowedNow, NotCancellable) as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            said = gettext("%(order)s is %(state)s now.") % {"order": order, "state": target.label}
            self.message_user(request, said, messages.SUCCESS)
        return redirect("admin:orders_order_change", order_id)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Add the order's buttons, messages, reminders and jobs, as far as the user may."""
        order = self.get_object(request, object_id) if object_id else None
        context = dict(extra_context or {})
        if order is not None and request.user.has_perm("orders.handle_order"):
            following = TRANSITIONS[OrderState(order.state)]
            context["steps"] = [
                (name, label)
                for name, (target, label, _act) in STEPS.items()
                if target in following
            ]
        if order is not None:
            context["reminders"] = BookingReminder.objects.filter(
                booking__order=order
            ).select_related("booking__slot")
        if order is not None and request.user.has_perm("notifications.view_delivery"):
            context["deliveries"] = Delivery.objects.about(order).order_by("pk")
        if order is not None and request.user.has_perm("queueadmin.view_job"):
            jobs = Job.objects.about(order).for_list().select_related("dead_letter")
            jobs = jobs.order_by("enqueued_at")
            context["jobs"] = jobs[:SHOWN_JOBS]
        return super().changeform_view(request, object_id, form_url, context)
