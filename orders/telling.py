"""Who is told about what, and the words' raw material: the business's side of `announce`."""

from collections.abc import Iterable
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from notifications.announcing import announce
from notifications.models import Channel, Delivery, Event, Incoming

from . import links
from .models import (
    BookingReminder,
    CreditAccount,
    CreditDrift,
    Invoice,
    Order,
    Report,
    RequestState,
    Subscriber,
    VendorRequest,
)
from .states import OrderState

#: What a shop is told when its order gets into a state; the others are of no use to it.
EVENTS = {
    OrderState.PLACED: Event.ORDER_PLACED,
    OrderState.CONFIRMED: Event.ORDER_CONFIRMED,
    OrderState.OUT_FOR_DELIVERY: Event.ORDER_OUT_FOR_DELIVERY,
    OrderState.DELIVERED: Event.ORDER_DELIVERED,
    OrderState.CANCELLED: Event.ORDER_CANCELLED,
    OrderState.EXPIRED: Event.ORDER_EXPIRED,
    OrderState.UNFULFILLABLE: Event.ORDER_UNFULFILLABLE,
}
#: States of a request after which its vendor must not go on preparing the order.
_OVER = (RequestState.SILENT, RequestState.WITHDRAWN)


def tell_shop(order_id: int, state: OrderState) -> list[Delivery]:
    """Tell the shop that its order got into a state."""
    order = Order.objects.select_related("retailer", "vendor").get(pk=order_id)
    return announce(
        EVENTS[state],
        subject=order,
        recipient=order.retailer,
        channels=order.retailer.channels,
        context=_order(order),
    )


def tell_released_vendors(order_id: int) -> list[Delivery]:
    """Tell the vendors whose answer is not awaited any more that the order has ended."""
    order = Order.objects.select_related("retailer").get(pk=order_id)
    requests = order.requests.filter(state__in=_OVER).select_related("vendor")
    return [
        delivery
        for request in requests
        for delivery in announce(
            Event.VENDOR_RELEASED,
            subject=order,
            recipient=request.vendor,
            channels=[Channel.WHATSAPP],
            context={"name": request.vendor.name, "order": str(order.pk)},
        )
    ]


def ask(request: VendorRequest) -> list[Delivery]:
    """Ask a vendor, with the link by which it answers."""
    order, vendor = request.order, request.vendor
    lines = [f"{line.quantity} × {line.name}" for line in order.lines.all()]
    return announce(
        Event.VENDOR_REQUEST,
        subject=order,
        recipient=vendor,
        channels=[Channel.WHATSAPP],
        context={
            "name": vendor.name,
            "order": str(order.pk),
            "shop": order.retailer.name,
            "lines": _shortened(lines),
            "total": _money(request.cost, order.currency),
            "until": request.expires_at.isoformat(),
            "link": links.url(request),
        },
    )


def remind_of_delivery(reminder: BookingReminder) -> list[Delivery]:
    """Remind a shop of its delivery slot."""
    order, slot = reminder.booking.order, reminder.booking.slot
    return announce(
        Event.BOOKING_REMINDER,
        subject=order,
        recipient=order.retailer,
        channels=order.retailer.channels,
        occasion=f"{reminder.version}, {reminder.kind}",
        context={
            "name": order.retailer.name,
            "order": str(order.pk),
            "starts": slot.starts_at.isoformat(),
            "ends": slot.ends_at.isoformat(),
        },
    )


def remind_of_payment(invoice: Invoice, *, late: bool, occasion: str) -> list[Delivery]:
    """Remind a shop of an open invoice."""
    retailer = invoice.account.retailer
    return announce(
        Event.PAYMENT_OVERDUE if late else Event.PAYMENT_DUE,
        subject=invoice.order,
        recipient=retailer,
        channels=retailer.channels,
        occasion=occasion,
        context={
            "name": retailer.name,
            "order": str(invoice.order_id),
            "rest": _money(invoice.rest, invoice.account.currency),
            "due": invoice.due_at.isoformat(),
        },
    )


def answer_balance(account: CreditAccount, inquiry: Incoming) -> list[Delivery]:
    """Answer an inquiry by free text, which WhatsApp allows for a day after it."""
    next_due = account.invoices.open().first()
    return announce(
        Event.BALANCE_ANSWER,
        subject=inquiry,
        recipient=account.retailer,
        channels=[Channel.WHATSAPP],
        context={
            "name": account.retailer.name,
            "balance": _money(account.balance, account.currency),
            "available": _money(account.available, account.currency),
            "due": next_due.due_at.isoformat() if next_due else "",
            "rest": _money(next_due.rest, account.currency) if next_due else "",
        },
    )


def tell_of_report(report: Report) -> list[Delivery]:
    """Mail a finished report's figures and address to whoever wants reports."""
    return [
        delivery
        for person in Subscriber.objects.filter(wants_reports=True)
        for delivery in announce(
            Event.REPORT_READY,
            subject=report,
            recipient=person,
            channels=[Channel.EMAIL],
            context={
                "name": person.name,
                "report": str(report),
                "figures": report.summary.get("totals", []),
                "link": _admin(report),
                "attachments": [file.name for file in (report.csv, report.pdf) if file],
            },
        )
    ]


def tell_of_drifts(drifts: Iterable[CreditDrift]) -> list[Delivery]:
    """Mail new drifts to whoever looks after the accounts."""
    return [
        delivery
        for drift in drifts
        for person in Subscriber.objects.filter(wants_drifts=True)
        for delivery in announce(
            Event.CREDIT_DRIFT,
            subject=drift,
            recipient=person,
            channels=[Channel.EMAIL],
            context={
                "name": person.name,
                "account": str(drift.account),
                "balance": _money(drift.balance, drift.account.currency),
                "entries": _money(drift.entry_sum, drift.account.currency),
                "difference": _money(drift.difference, drift.account.currency),
                "link": _admin(drift.account),
            },
        )
    ]


def _order(order: Order) -> dict[str, object]:
    return {
        "name": order.retailer.name,
        "order": str(order.pk),
        "vendor": order.vendor.name if order.vendor else "",
        "total": _money(order.total, order.currency),
        "lines": [
            {
                "product": line.name,
                "quantity": line.quantity,
                "total": _money(line.total, order.currency),
            }
            for line in order.lines.all()
        ],
        "at": timezone.now().isoformat(),
    }


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount} {currency}"


def _shortened(lines: list[str], most: int = 10) -> str:
    """Return the lines as one text that fits a template's parameter."""
    more = len(lines) - most
    return ", ".join(lines[:most]) + (f", … (+{more})" if more > 0 else "")


def _admin(target: models.Model) -> str:
    meta = target._meta
    path = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[target.pk])
    return f"{settings.SITE_URL.rstrip('/')}{path}"
