"""The life of an order: every change of its state is made here."""

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from notifications.announcing import announce
from notifications.models import Event
from queueadmin.models.job import subject_key

from .exceptions import (
    EmptyOrder,
    InvalidQuantity,
    MixedCurrencies,
    NotCancellable,
    TooManyLines,
    UnknownProduct,
)
from .expiry import TIME_TO_CONFIRM
from .models import MAX_QUANTITY, Order, OrderEvent, OrderLine, Product, Retailer
from .states import OrderState, before

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

logger = logging.getLogger(__name__)

#: More does not fit one delivery note.
MAX_LINES = 100
#: Products have ids of 64 bits; larger numbers would be an error of the database.
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Item:
    """How much of which product is wanted."""

    product_id: int
    quantity: int


def place_order(
    *,
    retailer: Retailer,
    lines: Iterable[Item],
    by: "AbstractBaseUser | None",
    token: uuid.UUID | None = None,
) -> Order:
    """Save an order at today's prices and enqueue its confirmation, all or nothing.

    Args:
        retailer: the shop that orders.
        lines: what it wants; quantities of the same product are added up.
        by: who placed it; None for a program.
        token: of the form; an order with the same token is returned, not placed again.

    Raises:
        InvalidOrder: the subclass and text say what is wrong with it.
    """
    wanted = _add_up(lines)
    products = _find_products(wanted)
    currencies = {product.currency for product in products}
    if len(currencies) > 1:
        raise MixedCurrencies(
            _("One order has one currency, not %(currencies)s.")
            % {"currencies": ", ".join(sorted(currencies))}
        )
    now = timezone.now()
    order = Order(
        retailer=retailer,
        token=token or uuid.uuid4(),
        currency=currencies.pop(),
        total=sum((product.price * wanted[product.pk] for product in products), Decimal()),
        placed_at=now,
        changed_at=now,
    )
    try:
        with transaction.atomic():
            order.save(force_insert=True)
            _fill(order, products, wanted, by=by)
            _enqueue(order)
    except IntegrityError:
        repeated = Order.objects.filter(retailer=retailer, token=order.token).first()
        if repeated is None:
            raise
        return repeated
    logger.info("Placed order=%s retailer=%s", order.pk, retailer.pk)
    return order


def confirm(order_id: int) -> bool:
    """Confirm a placed order and announce it to the shop, in one transaction.

    Returns:
        Whether this call did it; False where the order was confirmed before or has ended.
    """
    with transaction.atomic():
        if not _move(order_id, OrderState.CONFIRMED, by=None):
            return False
        order = Order.objects.select_related("retailer").get(pk=order_id)
        announce(
            Event.ORDER_CONFIRMED,
            subject=order,
            recipient=order.retailer,
            channels=order.retailer.channels,
            context=_context(order),
        )
    return True


def cancel(order: Order, *, by: "AbstractBaseUser", note: str = "") -> None:
    """Cancel an order.

    Raises:
        NotCancellable: it has gone too far or has ended already.
    """
    with transaction.atomic():
        if not _move(order.pk, OrderState.CANCELLED, by=by, note=note):
            raise NotCancellable(_("This order cannot be cancelled any more."))


def expire(order_id: int) -> bool:
    """Expire an order that nobody confirmed in time.

    Returns:
        Whether this call did it; False where it is not due or not waiting any more.
    """
    with transaction.atomic():
        return _move(
            order_id,
            OrderState.EXPIRED,
            by=None,
            note=_("Not confirmed in time."),
            placed_at__lte=timezone.now() - TIME_TO_CONFIRM,
        )


def _move(
    order_id: int,
    target: OrderState,
    *,
    by: "AbstractBaseUser | None",
    note: str = "",
    **conditions: object,
) -> bool:
    """Change the state where that is allowed now, with a step in the history."""
    now = timezone.now()
    waiting = Order.objects.filter(pk=order_id, state__in=before(target), **conditions)
    if not waiting.update(state=target, changed_at=now):
        logger.info("Order %s cannot become %s now", order_id, target)
        return False
    _remember(order_id, target, by=by, note=note)
    logger.info("Order %s is %s", order_id, target)
    return True


def _remember(
    order_id: int, state: OrderState, *, by: "AbstractBaseUser | None", note: str = ""
) -> None:
    OrderEvent.objects.create(
        order_id=order_id,
        at=timezone.now(),
        state=state,
        user_id=by.pk if by is not None else None,
        user_name=by.get_username() if by is not None else "",
        note=note[:300],
    )


def _add_up(lines: Iterable[Item]) -> dict[int, int]:
    """Return the quantity per product id, checked."""
    wanted: dict[int, int] = {}
    for line in lines:
        # A bool is an int to Python, but nobody's quantity.
        if type(line.quantity) is not int or type(line.product_id) is not int:
            raise InvalidQuantity(
                _("Products and quantities are whole numbers."), product_id=line.product_id
            )
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
        if len(wanted) > MAX_LINES:
            raise TooManyLines(
                _("One order has at most %(count)d products.") % {"count": MAX_LINES}
            )
        if line.quantity < 1 or wanted[line.product_id] > MAX_QUANTITY:
            raise InvalidQuantity(
                _("Order between 1 and %(most)d of a product.") % {"most": MAX_QUANTITY},
                product_id=line.product_id,
            )
    if not wanted:
        raise EmptyOrder(_("Choose at least one product."))
    return wanted


def _find_products(wanted: dict[int, int]) -> list[Product]:
    ids = [product_id for product_id in wanted if 0 < product_id <= MAX_ID]
    products = list(Product.objects.on_sale().filter(pk__in=ids))
    if missing := set(wanted) - {product.pk for product in products}:
        raise UnknownProduct(
            _("A product you chose is not sold any more."), product_id=min(missing)
        )
    return products


def _fill(
    order: Order,
    products: list[Product],
    wanted: dict[int, int],
    *,
    by: "AbstractBaseUser | None",
) -> None:
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            product=product,
            name=str(product),
            quantity=wanted[product.pk],
            price=product.price,
        )
        for product in products
    )
    _remember(order.pk, OrderState.PLACED, by=by)


def _enqueue(order: Order) -> None:
    # Actors call this module; they are loaded when both are complete.
    from .actors import expire_order, order_confirmation

    subject = subject_key(order)
    order_confirmation.send_with_options(args=(order.pk,), subject=subject)
    expire_order.send_with_options(args=(order.pk,), subject=subject, delay=TIME_TO_CONFIRM)


def _context(order: Order) -> dict[str, object]:
    def money(amount: Decimal) -> str:
        return f"{amount} {order.currency}"

    return {
        "name": order.retailer.name,
        "order": str(order.pk),
        "total": money(order.total),
        "lines": [
            {"product": line.name, "quantity": line.quantity, "total": money(line.total)}
            for line in order.lines.all()
        ],
    }
