"""A believable past for the demo: many orders, written in bulk, at rest.

They are rows only. No jobs are made of them and nobody is told anything: what is past has
been told. Orders, lines, steps, requests, messages, credit entries and invoices fit together,
so that reports, routing, scores and reconciliation find a business that makes sense.
"""

import random
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from notifications.models import Channel, Delivery, DeliveryState, ReceiptStatus
from queueadmin.models.job import subject_key

from . import telling
from .models import (
    CreditAccount,
    CreditEntry,
    EntryKind,
    Invoice,
    Order,
    OrderEvent,
    OrderLine,
    Payment,
    Product,
    RequestState,
    Retailer,
    Vendor,
    VendorRequest,
)
from .states import OrderState

#: Orders per transaction: seconds of work, and memory for a few thousand rows.
BATCH = 500
#: How far back the past goes.
SPAN = timedelta(days=120)
#: How orders ended, and how often.
ENDS = {
    OrderState.DELIVERED: 86,
    OrderState.CANCELLED: 6,
    OrderState.EXPIRED: 3,
    OrderState.UNFULFILLABLE: 5,
}
#: The steps to each end.
PATHS = {
    OrderState.DELIVERED: (
        OrderState.PLACED,
        OrderState.ROUTING,
        OrderState.AWAITING_VENDOR,
        OrderState.CONFIRMED,
        OrderState.OUT_FOR_DELIVERY,
        OrderState.DELIVERED,
    ),
    OrderState.CANCELLED: (OrderState.PLACED, OrderState.CANCELLED),
    OrderState.EXPIRED: (
        OrderState.PLACED,
        OrderState.ROUTING,
        OrderState.AWAITING_VENDOR,
        OrderState.EXPIRED,
    ),
    OrderState.UNFULFILLABLE: (
        OrderState.PLACED,
        OrderState.ROUTING,
        OrderState.UNFULFILLABLE,
    ),
}


def write(count: int, *, seed: int = 1) -> Iterator[int]:
    """Write `count` orders of the past; yield after each batch how many it had."""
    chance = random.Random(seed)  # noqa: S311  # a demo's chance
    retailers = list(Retailer.objects.select_related("credit"))
    products, vendors = list(Product.objects.on_sale()), list(Vendor.objects.all())
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        with transaction.atomic():
            _write_batch(size, chance, retailers, products, vendors)
        yield size


def _write_batch(
    size: int,
    chance: random.Random,
    retailers: list[Retailer],
    products: list[Product],
    vendors: list[Vendor],
) -> None:
    now = timezone.now()
    orders, baskets = [], []
    for _number in range(size):
        chosen = chance.sample(products, chance.randint(1, min(4, len(products))))
        basket = [(product, chance.randint(1, 6)) for product in chosen]
        baskets.append(basket)
        orders.append(_order(chance, chance.choice(retailers), vendors, basket, now))
    Order.objects.bulk_create(orders)
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order, product=product, name=str(product), quantity=quantity, price=product.price
        )
        for order, basket in zip(orders, baskets, strict=True)
        for product, quantity in basket
    )
    OrderEvent.objects.bulk_create(event for order in orders for event in _events(order))
    VendorRequest.objects.bulk_create(
        _request(order, order.vendor) for order in orders if order.vendor
    )
    _write_messages(orders)
    _write_credit([order for order in orders if order.payment == Payment.CREDIT], chance)


def _order(
    chance: random.Random,
    retailer: Retailer,
    vendors: list[Vendor],
    basket: list[tuple[Product, int]],
    now: datetime,
) -> Order:
    end = chance.choices(list(ENDS), list(ENDS.values()))[0]
    placed_at = now - timedelta(days=1) - chance.random() * SPAN
    on_credit = hasattr(retailer, "credit") and chance.random() < 0.3
    return Order(
        retailer=retailer,
        token=uuid.uuid4(),
        state=end,
        currency="EUR",
        total=sum((product.price * quantity for product, quantity in basket), Decimal()),
        payment=Payment.CREDIT if on_credit and end == OrderState.DELIVERED else Payment.CASH,
        vendor=chance.choice(vendors) if OrderState.AWAITING_VENDOR in PATHS[end] else None,
        placed_at=placed_at,
        changed_at=placed_at + timedelta(hours=5),
        expires_at=placed_at + timedelta(minutes=35),
    )


def _events(order: Order) -> Iterator[OrderEvent]:
    for at, state in enumerate(PATHS[OrderState(order.state)]):
        yield OrderEvent(order=order, at=order.placed_at + timedelta(hours=at), state=state)


def _request(order: Order, vendor: Vendor) -> VendorRequest:
    is_delivered = order.state == OrderState.DELIVERED
    return VendorRequest(
        order=order,
        vendor=vendor,
        state=RequestState.ACCEPTED if is_delivered else RequestState.WITHDRAWN,
        cost=order.total,
        asked_at=order.placed_at,
        expires_at=order.placed_at + timedelta(minutes=30),
        answered_at=order.placed_at + timedelta(minutes=12) if is_delivered else None,
    )


def _write_messages(orders: list[Order]) -> None:
    """Write that each shop was told of each step by WhatsApp, and that it arrived."""
    Delivery.objects.bulk_create(message for order in orders for message in _messages(order))
    subjects = [subject_key(order) for order in orders]
    # It is stamped with the present when a row is made.
    Delivery.objects.filter(subject__in=subjects).update(created_at=F("sent_at"))


def _messages(order: Order) -> Iterator[Delivery]:
    for step in _events(order):
        if event := telling.EVENTS.get(OrderState(step.state)):
            yield Delivery(
                event=event,
                subject=subject_key(order),
                recipient=subject_key(order.retailer),
                recipient_name=order.retailer.name,
                channel=Channel.WHATSAPP,
                state=DeliveryState.SENT,
                address=order.retailer.phone,
                provider="whatsapp",
                provider_message_id=f"wamid.{uuid.uuid4().hex}",
                sent_at=step.at,
                receipt=ReceiptStatus.DELIVERED,
                receipt_rank=ReceiptStatus.DELIVERED.rank,
                receipt_at=step.at,
            )


def _write_credit(orders: list[Order], chance: random.Random) -> None:
    """Write charge, invoice and payment; what is paid in full leaves every balance as it was."""
    accounts = {account.retailer_id: account for account in CreditAccount.objects.all()}
    entries, invoices = [], []
    for order in orders:
        account = accounts[order.retailer_id]
        issued_at = order.placed_at + timedelta(hours=5)
        due_at = issued_at + timedelta(days=account.terms_days)
        paid_at = min(due_at + timedelta(days=chance.randint(-20, 12)), timezone.now())
        for kind, amount, at in (
            (EntryKind.CHARGE, order.total, order.placed_at),
            (EntryKind.PAYMENT, -order.total, paid_at),
        ):
            entries.append(
                CreditEntry(account=account, kind=kind, amount=amount, order=order, at=at)
            )
        invoices.append(
            Invoice(
                account=account,
                order=order,
                amount=order.total,
                paid=order.total,
                issued_at=issued_at,
                due_at=due_at,
                settled_at=paid_at,
            )
        )
    CreditEntry.objects.bulk_create(entries)
    Invoice.objects.bulk_create(invoices)
