"""Vendors are asked one after the other, answer by a link, and their stock is right."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from notifications.models import Delivery
from notifications.sandbox import Sandbox
from orders import links, routing, workflow
from orders.exceptions import AnswerTooLate
from orders.models import Offer, Order, Product, RequestState, Retailer, Vendor, VendorRequest
from orders.workflow import Item, place_order
from queueadmin import clock
from queueadmin.models import Job
from queueadmin.testing import run_jobs
from tests.business import VENDOR_PHONE, asked, confirm, make_vendor

pytestmark = pytest.mark.django_db

LATER = timedelta(minutes=31)


def stock(vendor: Vendor) -> int:
    return Offer.objects.get(vendor=vendor).stock


def path(request: VendorRequest) -> str:
    return urlsplit(links.url(request)).path


def at(moment: timedelta) -> time_machine.travel:
    return time_machine.travel(timezone.now() + moment, tick=False)


def test_the_vendor_gets_a_link_that_shows_the_order_and_answers_nothing_by_itself(
    sandbox: Sandbox, order: Order, client: Client
) -> None:
    run_jobs()
    (message,) = [sent for sent in sandbox.messages if sent.recipient == VENDOR_PHONE]
    link = message.text.split()[-1]

    page = client.get(urlsplit(link).path)

    assert page.status_code == 200
    assert "Black tea (case)" in page.content.decode()
    order.refresh_from_db()
    assert order.state == "awaiting_vendor"


def test_an_order_goes_from_the_shop_to_its_door(
    sandbox: Sandbox, order: Order, client: Client, vendor: Vendor
) -> None:
    run_jobs()
    answer = client.post(path(asked(order)), {"answer": "confirm"}, follow=True)
    assert "You have confirmed" in answer.content.decode()
    workflow.dispatch(order, by=order.retailer.user)
    workflow.deliver(order, by=order.retailer.user)
    run_jobs()

    states = [step.state for step in order.history.all()]
    assert states == [
        "placed",
        "routing",
        "awaiting_vendor",
        "confirmed",
        "out_for_delivery",
        "delivered",
    ]
    events = Delivery.objects.to(order.retailer).values_list("event", flat=True)
    assert set(events) == {
        "order_placed",
        "order_confirmed",
        "order_out_for_delivery",
        "order_delivered",
    }
    assert stock(vendor) == 98


def test_after_a_refusal_the_next_vendor_is_asked_and_the_stock_is_back(
    sandbox: Sandbox, order: Order, tea: Product, vendor: Vendor, client: Client
) -> None:
    second = make_vendor("Quay Foods", tea, price="2.00")
    run_jobs()
    assert (stock(vendor), stock(second)) == (98, 100)

    client.post(path(asked(order)), {"answer": "refuse", "note": "no lorry"})
    run_jobs()

    assert asked(order).vendor == second
    assert (stock(vendor), stock(second)) == (100, 98)
    assert any("no lorry" in step.note for step in order.history.all())


def test_a_vendor_that_stays_silent_is_passed_over(
    sandbox: Sandbox, order: Order, tea: Product, vendor: Vendor
) -> None:
    second = make_vendor("Quay Foods", tea, price="2.00")
    run_jobs()
    first = asked(order)

    with at(LATER):
        run_jobs()

    first.refresh_from_db()
    assert first.state == RequestState.SILENT
    assert asked(order).vendor == second
    assert (stock(vendor), stock(second)) == (100, 98)


def test_silence_is_counted_by_the_ledgers_clock_also_on_a_host_whose_clock_is_slow(
    sandbox: Sandbox, order: Order, tea: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = make_vendor("Quay Foods", tea, price="2.00")
    run_jobs()
    slow = timedelta(minutes=5)
    monkeypatch.setattr(clock, "_offset", slow)

    with at(LATER - slow):
        run_jobs()

    assert asked(order).vendor == second


def test_an_answer_in_time_leaves_the_fallback_nothing_to_do(
    sandbox: Sandbox, order: Order
) -> None:
    run_jobs()
    request = asked(order)
    confirm(order)

    with at(LATER):
        run_jobs()
        assert not workflow.give_up_on(request.pk)

    order.refresh_from_db()
    assert order.state == "confirmed"


def test_with_no_vendor_left_the_order_ends_and_both_sides_are_told(
    sandbox: Sandbox, order: Order, vendor: Vendor
) -> None:
    run_jobs()

    with at(LATER):
        run_jobs()

    order.refresh_from_db()
    assert order.state == "unfulfillable"
    told = Delivery.objects.about(order)
    assert told.to(order.retailer).filter(event="order_unfulfillable").count() == 3
    assert told.to(vendor).filter(event="vendor_released").exists()
    assert stock(vendor) == 100


def test_choosing_twice_asks_once(order: Order, vendor: Vendor) -> None:
    assert [workflow.route(order.pk), workflow.route(order.pk)] == [True, False]

    assert (order.requests.count(), stock(vendor)) == (1, 98)


def test_without_enough_stock_nobody_is_asked(retailer: Retailer, tea: Product) -> None:
    make_vendor("North Wholesale", tea, stock=1)
    order = place_order(retailer=retailer, lines=[Item(tea.pk, 2)], by=None)

    workflow.route(order.pk)

    order.refresh_from_db()
    assert (order.state, order.requests.count()) == ("unfulfillable", 0)


def confirm_it(order: Order, request: VendorRequest) -> None:
    workflow.answer(request, accepted=True)


def refuse_it(order: Order, request: VendorRequest) -> None:
    workflow.answer(request, accepted=False)


def cancel_it(order: Order, request: VendorRequest) -> None:
    workflow.cancel(order, by=order.retailer.user)


def expire_it(order: Order, request: VendorRequest) -> None:
    Order.objects.filter(pk=order.pk).update(expires_at=timezone.now())
    workflow.expire(order.pk)


Act = Callable[[Order, VendorRequest], None]


@pytest.mark.parametrize(
    ("first", "second", "state", "left"),
    [
        (confirm_it, expire_it, "confirmed", 98),
        (expire_it, confirm_it, "expired", 100),
        (cancel_it, confirm_it, "cancelled", 100),
        (confirm_it, cancel_it, "cancelled", 100),
        (refuse_it, confirm_it, "routing", 100),
        (confirm_it, refuse_it, "confirmed", 98),
        (expire_it, refuse_it, "expired", 100),
    ],
)
def test_of_two_acts_one_wins_and_the_stock_is_right(
    order: Order, vendor: Vendor, first: Act, second: Act, state: str, left: int
) -> None:
    request = asked(order)

    first(order, request)
    with contextlib.suppress(AnswerTooLate):
        second(order, request)

    order.refresh_from_db()
    assert (order.state, stock(vendor)) == (state, left)


def test_goods_are_put_back_once_however_often_an_end_is_repeated(
    order: Order, vendor: Vendor
) -> None:
    request = asked(order)

    for _run in range(2):
        expire_it(order, request)
        with at(LATER):
            workflow.give_up_on(request.pk)

    assert stock(vendor) == 100


def test_the_same_answer_twice_is_one_and_another_one_is_refused(
    order: Order, client: Client
) -> None:
    address = path(asked(order))

    codes = [
        client.post(address, {"answer": word}).status_code
        for word in ("confirm", "confirm", "refuse")
    ]

    assert codes == [302, 302, 409]
    assert [step.state for step in order.history.all()].count("confirmed") == 1


@pytest.mark.parametrize("answer", ["", "yes", "CONFIRM", "x" * 5000])
def test_an_answer_that_is_none_is_refused(order: Order, client: Client, answer: str) -> None:
    page = client.post(path(asked(order)), {"answer": answer})

    order.refresh_from_db()
    assert (page.status_code, order.state) == (400, "awaiting_vendor")


def test_a_link_holds_until_its_time_is_over(order: Order, client: Client) -> None:
    address = path(asked(order))

    with at(LATER):
        codes = client.get(address).status_code, client.post(address, {"answer": "confirm"})

    order.refresh_from_db()
    assert (codes[0], codes[1].status_code, order.state) == (410, 410, "awaiting_vendor")


@pytest.mark.parametrize("change", [lambda token: token[:-1] + "x", lambda token: "2" + token])
def test_a_link_that_was_changed_leads_nowhere(
    order: Order, client: Client, change: Callable[[str], str]
) -> None:
    token = change(links.token(asked(order)))

    for answer in (client.get(f"/vendor/{token}/"), client.post(f"/vendor/{token}/")):
        assert answer.status_code == 404


def test_a_form_of_another_site_cannot_answer(order: Order) -> None:
    strict = Client(enforce_csrf_checks=True)

    answer = strict.post(path(asked(order)), {"answer": "confirm"})

    assert answer.status_code == 403


def test_the_cheapest_vendor_is_asked_unless_it_is_known_to_refuse(
    retailer: Retailer, tea: Product
) -> None:
    cheap = make_vendor("Cheap", tea, price="10.00")
    dear = make_vendor("Dear", tea, price="11.00")
    first = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
    assert asked(first).vendor == cheap

    workflow.answer(asked(first), accepted=False)
    second = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)

    assert asked(second).vendor == dear


def test_reliability_starts_at_four_fifths_and_forgets_after_ninety_days(
    order: Order, vendor: Vendor
) -> None:
    assert routing.reliability_of(vendor) == Decimal("0.8")
    confirm(order)
    assert routing.reliability_of(vendor) == Decimal(5) / Decimal(6)

    VendorRequest.objects.update(asked_at=timezone.now() - timedelta(days=91))

    assert routing.reliability_of(vendor) == Decimal("0.8")


def test_a_vendor_that_is_not_active_is_not_asked(order: Order, vendor: Vendor) -> None:
    Vendor.objects.update(is_active=False)

    workflow.route(order.pk)

    order.refresh_from_db()
    assert order.state == "unfulfillable"


def test_shops_do_not_see_what_vendors_are_told(
    sandbox: Sandbox, order: Order, client: Client
) -> None:
    run_jobs()
    client.force_login(order.retailer.user)

    text = client.get(f"/orders/{order.pk}/").content.decode()

    assert VENDOR_PHONE not in text
    assert "request to a vendor" not in text


def test_the_answer_cancels_the_jobs_that_waited_for_it(sandbox: Sandbox, order: Order) -> None:
    run_jobs()
    waiting = Job.objects.about(order).filter(actor__in=["fall_back", "expire_order"])
    assert set(waiting.values_list("state", flat=True)) == {"scheduled"}

    confirm(order)

    assert set(waiting.values_list("state", flat=True)) == {"cancelled"}
