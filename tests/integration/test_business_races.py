"""The business under concurrency: real threads, each with a connection of its own."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone

from orders import bookings, credit, workflow
from orders.exceptions import AnswerTooLate, CreditRefused, NotCancellable, SlotFull
from orders.models import (
    CreditAccount,
    DeliverySlot,
    Offer,
    Order,
    Payment,
    Product,
    Retailer,
    Vendor,
)
from orders.workflow import Item, place_order
from tests.business import asked, make_vendor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

THREADS = 8


@pytest.fixture(autouse=True)
def no_broker(settings: object, redis_url: str) -> None:
    """An empty server to push to: these tests are about the database."""


@pytest.fixture
def retailer() -> Retailer:
    user = User.objects.create_user("shop")
    return Retailer.objects.create(
        user=user, name="Harbour Shop", phone="+447700900123", email="shop@example.com"
    )


@pytest.fixture
def tea() -> Product:
    return Product.objects.create(name="Black tea", unit="case", price=Decimal("40.00"))


@pytest.fixture
def vendor(tea: Product) -> Vendor:
    return make_vendor("North Wholesale", tea, stock=10)


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run all at the same moment and return what each returned or raised."""
    results: list[object] = [None] * len(acts)
    barrier = threading.Barrier(len(acts))

    def run(number: int) -> None:
        barrier.wait(timeout=20)
        try:
            results[number] = acts[number]()
        except Exception as error:
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def place(retailer: Retailer, tea: Product, *, payment: Payment = Payment.CASH) -> Order:
    return place_order(retailer=retailer, lines=[Item(tea.pk, 3)], by=None, payment=payment)


def test_the_limit_holds_under_concurrent_orders(retailer: Retailer, tea: Product) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal("360.00"))

    results = at_once(
        *[lambda: place(retailer, tea, payment=Payment.CREDIT) for _order in range(THREADS)]
    )

    refused = [result for result in results if isinstance(result, CreditRefused)]
    assert len(refused) == THREADS - 3, results
    account.refresh_from_db()
    assert account.balance == Decimal("360.00")
    assert credit.reconcile([account.pk]) == []
    assert Order.objects.count() == 3


def test_stock_is_never_negative_and_nothing_is_lost(
    retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    orders = [place(retailer, tea) for _order in range(THREADS)]

    at_once(*[lambda order=order: workflow.route(order.pk) for order in orders])

    assert Offer.objects.get(vendor=vendor).stock == 1
    states = sorted(Order.objects.values_list("state", flat=True))
    assert states == ["awaiting_vendor"] * 3 + ["unfulfillable"] * (THREADS - 3)


def expire(order: Order) -> Callable[[], object]:
    Order.objects.filter(pk=order.pk).update(expires_at=timezone.now())
    return lambda: workflow.expire(order.pk)


def test_of_confirmation_expiry_cancellation_and_refusal_one_wins(
    retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    for _round in range(6):
        order = place(retailer, tea)
        request = asked(order)
        before = Offer.objects.get(vendor=vendor).stock
        results = at_once(
            lambda request=request: workflow.answer(request, accepted=True),
            expire(order),
            lambda order=order: workflow.cancel(order, by=retailer.user),
            lambda request=request: workflow.answer(request, accepted=False),
        )

        order.refresh_from_db()
        for result in results:
            assert result in (None, True, False) or isinstance(
                result, (AnswerTooLate, NotCancellable)
            ), results
        stock = Offer.objects.get(vendor=vendor).stock
        # Whoever was cancelled after its confirmation has given its goods back as well.
        assert stock == (before if order.state == "confirmed" else before + 3), order.state
        held = order.requests.holding().count()
        assert held == (1 if order.state == "confirmed" else 0)
        if order.state == "confirmed":
            workflow.cancel(order, by=retailer.user)


def test_a_request_answered_twice_at_once_is_answered_once(
    retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    order = place(retailer, tea)
    request = asked(order)

    at_once(*[lambda: workflow.answer(request, accepted=True) for _click in range(THREADS)])

    assert order.history.filter(state="confirmed").count() == 1


def test_a_slot_is_never_overfull_and_moves_do_not_wait_in_a_circle(
    retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    start = timezone.now() + timedelta(days=2)
    slots = [
        DeliverySlot.objects.create(
            starts_at=start, ends_at=start + timedelta(hours=1), capacity=capacity
        )
        for capacity in (4, 4)
    ]
    orders = [place(retailer, tea) for _order in range(THREADS)]
    for number, order in enumerate(orders[:4]):
        bookings.book(order, slots[number % 2])

    results = at_once(
        *[
            lambda order=order, number=number: bookings.book(order, slots[(number + 1) % 2])
            for number, order in enumerate(orders)
        ]
    )

    for result in results:
        assert not isinstance(result, Exception) or isinstance(result, SlotFull), results
    for slot in slots:
        slot.refresh_from_db()
        assert slot.booked == slot.bookings.filter(cancelled_at__isnull=True).count() <= 4


def test_payments_at_once_settle_each_invoice_once(retailer: Retailer, tea: Product) -> None:
    make_vendor("North Wholesale", tea)
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(1000))
    for _order in range(3):
        order = place(retailer, tea, payment=Payment.CREDIT)
        workflow.answer(asked(order), accepted=True)
        workflow.dispatch(order, by=None)
        workflow.deliver(order, by=None)

    results = at_once(
        *[
            lambda: credit.record_payment(account, Decimal("60.00"), by=retailer.user)
            for _payment in range(6)
        ]
    )

    assert not [result for result in results if isinstance(result, Exception)], results
    account.refresh_from_db()
    assert account.balance == Decimal(0)
    assert account.invoices.open().count() == 0
    assert credit.reconcile([account.pk]) == []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    connection.close()
