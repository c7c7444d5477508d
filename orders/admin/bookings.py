"""Delivery slots in the admin; bookings are made by shops."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from ..models import Booking, DeliverySlot
from .base import ReadOnly

if TYPE_CHECKING:
    SlotAdminBase = admin.ModelAdmin[DeliverySlot]
    BookingInlineBase = admin.TabularInline[Booking, DeliverySlot]
else:
    SlotAdminBase, BookingInlineBase = admin.ModelAdmin, admin.TabularInline


class BookingInline(ReadOnly, BookingInlineBase):
    """Who comes in this slot."""

    model = Booking
    fields = ("order", "cancelled_at", "changed_at")
    readonly_fields = fields
    show_change_link = False


@admin.register(DeliverySlot)
class DeliverySlotAdmin(SlotAdminBase):
    """When orders can be delivered."""

    list_display = ("__str__", "capacity", "booked")
    date_hierarchy = "starts_at"
    readonly_fields = ("booked",)
    inlines = (BookingInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Keep the times of a slot that is booked: its reminders follow from them."""
        if obj is not None and obj.booked:
            return ("starts_at", "ends_at", "booked")
        return ("booked",)
