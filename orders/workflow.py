"""The life of an order: every change of its state is made here.

Each change begins with one conditional update of the order's row; its row count says who
won, and holding that row lock a change goes on to the request, the stock and the credit
account, always in this order. So of a late confirmation and an expiry, a cancellation and
a refusal, one happens and the other finds nothing to do, and no two wait for each other in
a circle. The picture of the states is in docs/orders.md.

What is due is decided by the ledger's clock, which also decides when jobs run: on a host whose
own clock is slow a job would find that it is not time yet, and nothing would come after it.
"""

import logging
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from queueadmin import clock
from queueadmin.models.job import subject_key

from . import basket, bookings, credit, routing, stock, telling, timers
from .basket import Basket, Item
from .exceptions import AnswerTooLate, NotAllowedNow, NotCancellable
from .models import (
    HOLDING,
    Order,
    OrderEvent,
    OrderLine,
    Payment,
    Reason,
    RequestState,
    Retailer,
    VendorRequest,
)
from .states import OrderState, before

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

__all__ = [
    "Item",
    "answer",
    "cancel",
    "deliver",
    "dispatch",
    "expire",
    "give_up_on",
    "place_order",
    "route",
]

logger = logging.getLogger(__name__)

#: Expiry leaves the fallback of the same moment this much time to ask the next vendor.
GRACE = timedelta(minutes=5)


def time_to_answer() -> timedelta:
    """Return how long a vendor may stay silent."""
    return timedelta(minutes=settings.VENDOR_ANSWER_MINUTES)


def time_to_confirm() -> timedelta:
    """Return how long an order waits for a confirmation after its last request."""
    return timedelta(minutes=settings.ORDER_EXPIRY_MINUTES)


def place_order(
    *,
    retailer: Retailer,
    lines: Iterable[Item],
    by: "AbstractBaseUser | None",
    token: uuid.UUID | None = None,
    payment: Payment = Payment.CASH,
) -> Order:
    """Save an order at today's prices and enqueue what follows, all or nothing.

    Args:
        retailer: the shop that orders.
        lines: what it wants; quantities of the same product are added up.
        by: who placed it; None for a program.
        token: of the form; an order with the same token is returned, not placed again.
        payment: cash on delivery, or on the shop's credit.

    Raises:
        InvalidOrder: the subclass and text say what is wrong with it.
        CreditRefused: the shop has no credit, or not enough left.
    """
    wanted = basket.fill(lines)
    now = clock.now()
    order = Order(
        retailer=retailer,
        token=token or uuid.uuid4(),
        currency=wanted.currency,
        total=wanted.total,
        payment=payment,
        placed_at=now,
        changed_at=now,
        expires_at=now + time_to_confirm() + GRACE,
    )
    if token and (repeated := _placed_before(order)):
        return repeated
    try:
        with transaction.atomic():
            order.save(force_insert=True)
            _fill(order, wanted)
            _remember(order.pk, OrderState.PLACED, by=by)
            if payment == Payment.CREDIT:
                credit.charge(order, by=by)
            _begin(order)
    except IntegrityError:
        if repeated := _placed_before(order):
            return repeated
        raise
    logger.info("Placed order=%s retailer=%s", order.pk, retailer.pk)
    return order


def route(order_id: int) -> bool:
    """Ask the best vendor that was not asked yet; with none left the order has ended.

    Reserving the goods, the request and its message are one transaction: a run that breaks
    off leaves nothing, and a second run finds the order already waiting.

    Returns:
        Whether this call did something; False where the order is not to be routed now.
    """
    with transaction.atomic():
        is_new = _move(order_id, OrderState.ROUTING, by=None, state=OrderState.PLACED)
        if not is_new and not _hold(order_id):
            return False
        order = Order.objects.select_related("retailer").get(pk=order_id)
        lines = list(order.lines.all())
        for candidate in routing.candidates(order, lines):
            if stock.reserve(lines, candidate.vendor):
                _ask(order, candidate)
                return True
        _move(order_id, OrderState.UNFULFILLABLE, by=None, reason=Reason.NO_VENDOR)
        credit.reverse(order)
        bookings.end(order)
        _tell(order, OrderState.UNFULFILLABLE)
    return True


def answer(request: VendorRequest, *, accepted: bool, note: str = "") -> None:
    """Record what the vendor says; the same answer again changes nothing.

    Raises:
        AnswerTooLate: the time is up, the order has ended, or it said otherwise before.
    """
    state = RequestState.ACCEPTED if accepted else RequestState.REFUSED
    now = clock.now()
    with transaction.atomic():
        if request.expires_at > now and _move_asked(
            request,
            OrderState.CONFIRMED if accepted else OrderState.ROUTING,
            reason=Reason.ACCEPTED if accepted else Reason.REFUSED,
            note=f"{request.vendor}, {note}" if note else str(request.vendor),
        ):
            _close(request, state, answered_at=now, note=note[:300])
            timers.stop(request.order, "fall_back", reason="the vendor answered")
            if accepted:
                timers.stop(request.order, "expire_order", reason="the order is confirmed")
                _tell(request.order, OrderState.CONFIRMED)
            else:
                _release(request)
            return
    request.refresh_from_db()
    if request.state != state:
        raise AnswerTooLate(request)


def give_up_on(request_id: int) -> bool:
    """Count a vendor as silent whose time is up, and ask the next.

    Returns:
        Whether this call did it; False where the vendor answered, or still may.
    """
    request = VendorRequest.objects.select_related("vendor", "order").get(pk=request_id)
    if request.expires_at > clock.now():
        return False
    with transaction.atomic():
        vendor = str(request.vendor)
        if not _move_asked(request, OrderState.ROUTING, reason=Reason.SILENT, note=vendor):
            return False
        _close(request, RequestState.SILENT)
        _release(request)
    return True


def dispatch(order: Order, *, by: "AbstractBaseUser | None", note: str = "") -> None:
    """Note that the goods have left the vendor.

    Raises:
        NotAllowedNow: the order is not confirmed, or has left already.
    """
    _step(order, OrderState.OUT_FOR_DELIVERY, by=by, note=note)


def deliver(order: Order, *, by: "AbstractBaseUser | None", note: str = "") -> None:
    """Note that the shop has its goods; what was ordered on credit is invoiced.

    Raises:
        NotAllowedNow: the order is not on its way.
    """
    _step(order, OrderState.DELIVERED, by=by, note=note)


def cancel(order: Order, *, by: "AbstractBaseUser", note: str = "") -> None:
    """Cancel an order; its goods go back to the vendor and its charge is reversed.

    Raises:
        NotCancellable: it has gone too far or has ended already.
    """
    with transaction.atomic():
        if not _move(order.pk, OrderState.CANCELLED, by=by, note=note):
            raise NotCancellable(_("This order cannot be cancelled any more."))
        _wind_up(order, OrderState.CANCELLED)


def expire(order_id: int) -> bool:
    """Expire an order that nobody confirmed in time.

    Returns:
        Whether this call did it; False where it is not due or not waiting any more.
    """
    with transaction.atomic():
        if not _move(
            order_id,
            OrderState.EXPIRED,
            by=None,
            reason=Reason.LATE,
            expires_at__lte=clock.now(),
        ):
            return False
        _wind_up(Order.objects.get(pk=order_id), OrderState.EXPIRED)
    return True


# --- Steps of a change, inside its transaction --------------------------------------------


def _move(
    order_id: int,
    target: OrderState,
    *,
    by: "AbstractBaseUser | None",
    reason: Reason | None = None,
    note: str = "",
    **conditions: object,
) -> bool:
    """Change the state where that is allowed now, with a step in the history."""
    now = clock.now()
    waiting = Order.objects.filter(pk=order_id, state__in=before(target), **conditions)
    if not waiting.update(state=target, changed_at=now):
        logger.info("Order %s cannot become %s now", order_id, target)
        return False
    _remember(order_id, target, by=by, reason=reason, note=note)
    logger.info("Order %s is %s", order_id, target)
    return True


def _move_asked(request: VendorRequest, target: OrderState, *, reason: Reason, note: str) -> bool:
    """Change the state if this request is the one the order waits for.

    An order asks a vendor once, so the vendor in its own row names the request: who gets
    past this update holds the order and finds the request open.
    """
    return _move(
        request.order_id,
        target,
        by=None,
        reason=reason,
        note=note,
        state=OrderState.AWAITING_VENDOR,
        vendor_id=request.vendor_id,
    )


def _close(request: VendorRequest, state: RequestState, **changes: object) -> None:
    VendorRequest.objects.filter(pk=request.pk).update(state=state, **changes)


def _hold(order_id: int) -> bool:
    """Lock an order that is being routed; return whether it is."""
    routed = Order.objects.filter(pk=order_id, state=OrderState.ROUTING)
    return bool(routed.update(changed_at=clock.now()))


def _ask(order: Order, candidate: routing.Candidate) -> None:
    from .actors import expire_order, fall_back

    now = clock.now()
    expires_at = now + time_to_confirm() + GRACE
    request = VendorRequest.objects.create(
        order=order,
        vendor=candidate.vendor,
        cost=candidate.cost,
        asked_at=now,
        expires_at=now + time_to_answer(),
    )
    _move(order.pk, OrderState.AWAITING_VENDOR, by=None, note=str(candidate.vendor))
    Order.objects.filter(pk=order.pk).update(vendor=candidate.vendor, expires_at=expires_at)
    subject = subject_key(order)
    telling.ask(request)
    # The answer cancels these two, and leaves them nothing to do if it comes too late to.
    fall_back.send_with_options(args=(request.pk,), subject=subject, delay=time_to_answer())
    expire_order.send_with_options(
        args=(order.pk,), subject=subject, delay=time_to_confirm() + GRACE
    )


def _release(request: VendorRequest) -> None:
    """Put the goods of a request back that has just ended, and ask the next vendor."""
    from .actors import ask_next_vendor

    stock.give_back(list(request.order.lines.all()), request.vendor_id)
    Order.objects.filter(pk=request.order_id).update(vendor=None)
    ask_next_vendor.send_with_options(args=(request.order_id,), subject=subject_key(request.order))


def _step(
    order: Order, target: OrderState, *, by: "AbstractBaseUser | None", note: str = ""
) -> None:
    with transaction.atomic():
        if not _move(order.pk, target, by=by, note=note):
            raise NotAllowedNow(
                _("This order is %(state)s and cannot become %(target)s.")
                % {
                    "state": Order.objects.get(pk=order.pk).get_state_display(),
                    "target": target.label,
                }
            )
        if target == OrderState.DELIVERED:
            credit.invoice(order)
            bookings.fulfil(order)
        _tell(order, target)


def _wind_up(order: Order, state: OrderState) -> None:
    """Undo what an order holds that has just ended early."""
    timers.stop(order, "fall_back", "expire_order", reason="the order has ended")
    held = order.requests.filter(state__in=HOLDING).first()
    if held is not None:
        _close(held, RequestState.WITHDRAWN)
        stock.give_back(list(order.lines.all()), held.vendor_id)
    credit.reverse(order)
    bookings.end(order)
    _tell(order, state)


def _tell(order: Order, state: OrderState) -> None:
    from . import actors

    tellers = {
        OrderState.CONFIRMED: actors.order_confirmation,
        OrderState.DELIVERED: actors.order_completion,
        OrderState.CANCELLED: actors.order_cancellation,
    }
    subject = subject_key(order)
    if teller := tellers.get(state):
        teller.send_with_options(args=(order.pk,), subject=subject)
    else:
        actors.order_status_update.send_with_options(args=(order.pk, state.value), subject=subject)


def _begin(order: Order) -> None:
    """Enqueue what follows with one insert, for the shop waits for it."""
    # Actors call this module; they are loaded when both are complete.
    from .actors import expire_order, order_status_update, route_order

    subject = subject_key(order)
    due_ms = round(order.expires_at.timestamp() * 1000)
    broker: Any = route_order.broker
    broker.enqueue_many(
        [
            route_order.message_with_options(args=(order.pk,), subject=subject),
            order_status_update.message_with_options(
                args=(order.pk, OrderState.PLACED.value), subject=subject
            ),
            expire_order.message_with_options(args=(order.pk,), subject=subject, eta=due_ms),
        ]
    )


def _placed_before(order: Order) -> Order | None:
    return Order.objects.filter(retailer=order.retailer, token=order.token).first()


def _fill(order: Order, wanted: Basket) -> None:
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            product=product,
            name=str(product),
            quantity=quantity,
            price=product.price,
        )
        for product, quantity in wanted.quantities.items()
    )


def _remember(
    order_id: int,
    state: OrderState,
    *,
    by: "AbstractBaseUser | None",
    reason: Reason | None = None,
    note: str = "",
) -> None:
    OrderEvent.objects.create(
        order_id=order_id,
        at=clock.now(),
        state=state,
        user_id=by.pk if by is not None else None,
        user_name=by.get_username() if by is not None else "",
        reason=reason or "",
        note=note[:300],
    )
