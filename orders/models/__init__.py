"""Catalogue, people, orders, credit, bookings and reports."""

from .booking import Booking, BookingReminder, DeliverySlot, ReminderKind, ReminderState
from .catalogue import Offer, Picture, PictureState, Product, Vendor
from .credit import (
    CENT,
    MAX_SCORE,
    NEW_SCORE,
    CreditAccount,
    CreditDrift,
    CreditEntry,
    EntryKind,
    Invoice,
)
from .order import MAX_QUANTITY, Order, OrderEvent, OrderLine, Payment, Reason
from .report import Report, ReportState, Subscriber
from .request import HOLDING, RequestState, VendorRequest
from .retailer import Retailer

__all__ = [
    "CENT",
    "HOLDING",
    "MAX_QUANTITY",
    "MAX_SCORE",
    "NEW_SCORE",
    "Booking",
    "BookingReminder",
    "CreditAccount",
    "CreditDrift",
    "CreditEntry",
    "DeliverySlot",
    "EntryKind",
    "Invoice",
    "Offer",
    "Order",
    "OrderEvent",
    "OrderLine",
    "Payment",
    "Picture",
    "PictureState",
    "Product",
    "Reason",
    "ReminderKind",
    "ReminderState",
    "Report",
    "ReportState",
    "RequestState",
    "Retailer",
    "Subscriber",
    "Vendor",
    "VendorRequest",
]
