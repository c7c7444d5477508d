"""Orders are placed whole or not at all, and go only where their state allows."""

import uuid
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from notifications.models import Channel, Delivery, DeliveryState
from notifications.sandbox import Sandbox
from orders import workflow
from orders.actors import order_confirmation, sweep_expired_orders
from orders.exceptions import (
    EmptyOrder,
    InvalidQuantity,
    MixedCurrencies,
    NotCancellable,
    TooManyLines,
    UnknownProduct,
)
from orders.models import Order, OrderEvent, Product, Retailer, Vendor
from orders.states import OrderState
from orders.workflow import Item, place_order
from queueadmin.testing import run_jobs
from tests.business import confirm

pytestmark = pytest.mark.django_db


def test_a_placed_order_has_exact_totals_and_a_history(
    retailer: Retailer, tea: Product, salt: Product
) -> None:
    lines = [Item(tea.pk, 2), Item(salt.pk, 3)]

    order = place_order(retailer=retailer, lines=lines, by=retailer.user)

    assert (order.state, order.total, order.currency) == ("placed", Decimal("83.30"), "EUR")
    assert {(line.name, line.quantity, line.price) for line in order.lines.all()} == {
        ("Black tea (case)", 2, Decimal("41.50")),
        ("Sea salt (case)", 3, Decimal("0.10")),
    }
    assert [(step.state, step.user_name) for step in order.history.all()] == [("placed", "shop")]


def test_a_later_price_does_not_change_the_order(order: Order, tea: Product) -> None:
    Product.objects.filter(pk=tea.pk).update(price=Decimal(1))

    assert Order.objects.get(pk=order.pk).lines.get().total == Decimal("83.00")


def test_quantities_of_the_same_product_are_added_up(retailer: Retailer, tea: Product) -> None:
    order = place_order(retailer=retailer, lines=[Item(tea.pk, 1), Item(tea.pk, 2)], by=None)

    assert order.lines.get().quantity == 3


@pytest.mark.parametrize("quantity", [0, -1, 1000, True, 1.5, "1", None])
def test_a_quantity_out_of_bounds_is_refused(
    retailer: Retailer, tea: Product, quantity: int
) -> None:
    with pytest.raises(InvalidQuantity) as raised:
        place_order(retailer=retailer, lines=[Item(tea.pk, quantity)], by=None)

    assert raised.value.product_id == tea.pk
    assert not Order.objects.exists()


def test_quantities_that_add_up_to_too_much_are_refused(retailer: Retailer, tea: Product) -> None:
    with pytest.raises(InvalidQuantity):
        place_order(retailer=retailer, lines=[Item(tea.pk, 500), Item(tea.pk, 500)], by=None)


def test_an_order_of_nothing_is_refused(retailer: Retailer) -> None:
    with pytest.raises(EmptyOrder):
        place_order(retailer=retailer, lines=[], by=None)


@pytest.mark.parametrize("product_id", [404, -1, 0, 2**70])
def test_a_product_that_does_not_exist_is_refused(retailer: Retailer, product_id: int) -> None:
    with pytest.raises(UnknownProduct):
        place_order(retailer=retailer, lines=[Item(product_id, 1)], by=None)


def test_a_product_that_is_not_sold_any_more_is_refused(retailer: Retailer, tea: Product) -> None:
    Product.objects.filter(pk=tea.pk).update(is_active=False)

    with pytest.raises(UnknownProduct):
        place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)


def test_too_many_lines_are_refused(retailer: Retailer) -> None:
    with pytest.raises(TooManyLines):
        place_order(retailer=retailer, lines=[Item(pk, 1) for pk in range(1, 102)], by=None)


def test_two_currencies_in_one_order_are_refused(
    retailer: Retailer, tea: Product, salt: Product
) -> None:
    Product.objects.filter(pk=salt.pk).update(currency="GBP")

    with pytest.raises(MixedCurrencies, match="EUR, GBP"):
        place_order(retailer=retailer, lines=[Item(tea.pk, 1), Item(salt.pk, 1)], by=None)


def test_the_same_form_twice_is_one_order(retailer: Retailer, tea: Product) -> None:
    token = uuid.uuid4()

    first, second = (
        place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None, token=token)
        for _click in range(2)
    )

    assert first == second
    assert OrderEvent.objects.count() == 1


def test_a_confirmed_order_is_told_by_every_channel_the_shop_wants(
    sandbox: Sandbox, order: Order
) -> None:
    confirm(order)
    sandbox.reset()

    run_jobs()

    told = Delivery.objects.about(order).to(order.retailer).filter(event="order_confirmed")
    assert {(delivery.channel, delivery.state) for delivery in told} == {
        (channel, DeliveryState.SENT) for channel in Channel
    }
    texts = {message.text for message in sandbox.messages if "North Wholesale" in message.text}
    assert all(str(order.pk) in text for text in texts)


def test_a_channel_the_shop_does_not_want_is_left_out(
    sandbox: Sandbox, order: Order, retailer: Retailer
) -> None:
    Retailer.objects.filter(pk=retailer.pk).update(wants_sms=False, wants_email=False)

    run_jobs()

    told = Delivery.objects.about(order).to(retailer)
    assert [delivery.channel for delivery in told] == [Channel.WHATSAPP]


def test_an_outage_of_whatsapp_leaves_the_other_channels_alone(
    sandbox: Sandbox, order: Order
) -> None:
    sandbox.fail("whatsapp")

    run_jobs()

    assert {message.channel for message in sandbox.messages} == {"email", "sms"}


def test_a_confirmation_that_runs_twice_tells_once(sandbox: Sandbox, order: Order) -> None:
    confirm(order)
    run_jobs()
    sent = len(sandbox.messages)

    order_confirmation(order.pk)
    run_jobs()

    assert len(sandbox.messages) == sent


def test_a_cancelled_order_is_not_offered_to_a_vendor(sandbox: Sandbox, order: Order) -> None:
    workflow.cancel(order, by=order.retailer.user, note="by mistake")

    run_jobs()

    order.refresh_from_db()
    assert order.state == OrderState.CANCELLED
    assert not order.requests.exists()


def test_an_order_that_has_ended_cannot_be_cancelled(order: Order) -> None:
    anna = User.objects.create_user("anna")
    workflow.cancel(order, by=anna)

    with pytest.raises(NotCancellable):
        workflow.cancel(order, by=anna)


def test_the_sweep_expires_what_waited_too_long_and_nothing_else(
    retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    late, early, confirmed = (
        place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None) for _order in range(3)
    )
    confirm(confirmed)
    Order.objects.filter(pk__in=[late.pk, confirmed.pk]).update(expires_at=timezone.now())

    sweep_expired_orders()

    states = dict(Order.objects.values_list("pk", "state"))
    assert states == {late.pk: "expired", early.pk: "placed", confirmed.pk: "confirmed"}


def test_an_expiry_that_comes_early_does_nothing(order: Order) -> None:
    assert not workflow.expire(order.pk)
