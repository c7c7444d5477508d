"""The shop's other pages: credit, delivery time, messages; and nothing of somebody else's."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from notifications import preferences
from notifications.models import Channel, Topic
from orders import bookings
from orders.models import CreditAccount, DeliverySlot, Order, Product, Retailer

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(client: Client, retailer: Retailer) -> Client:
    client.force_login(retailer.user)
    return client


@pytest.fixture
def stranger(db: None) -> Client:
    user = User.objects.create_user("corner")
    Retailer.objects.create(user=user, name="Corner Shop", phone="+447700900456", email="c@d.ef")
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def slot(db: None) -> DeliverySlot:
    start = timezone.now() + timedelta(days=2)
    return DeliverySlot.objects.create(
        starts_at=start, ends_at=start + timedelta(hours=2), capacity=1
    )


def order_form(product: Product, **more: object) -> dict[str, object]:
    token = "5e0b8b5e-6c43-4a35-9d1c-6a0a1f0e7d11"
    return {"token": token, f"quantity_{product.pk}": 2, **more}


def test_an_order_on_credit_shows_on_the_credit_page(
    shop: Client, retailer: Retailer, tea: Product
) -> None:
    CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))

    shop.post("/orders/new/", order_form(tea, payment="credit"))

    text = shop.get("/orders/credit/").content.decode()
    assert "83.00 EUR" in text
    assert "17.00 EUR" in text


def test_an_order_above_the_limit_is_explained_and_not_placed(
    shop: Client, retailer: Retailer, tea: Product
) -> None:
    CreditAccount.objects.create(retailer=retailer, limit=Decimal(50))

    page = shop.post("/orders/new/", order_form(tea, payment="credit"))

    assert page.status_code == 422
    assert "above your credit" in page.content.decode()
    assert not Order.objects.exists()


@pytest.mark.parametrize("payment", ["credit", "barter"])
def test_a_shop_without_credit_cannot_choose_it(shop: Client, tea: Product, payment: str) -> None:
    assert shop.post("/orders/new/", order_form(tea, payment=payment)).status_code == 422
    assert not Order.objects.exists()


def test_a_delivery_time_is_chosen_and_given_back(
    shop: Client, order: Order, slot: DeliverySlot
) -> None:
    page = shop.post(f"/orders/{order.pk}/delivery/", {"slot": slot.pk}, follow=True)
    assert "24 hours before" in page.content.decode()
    slot.refresh_from_db()
    assert slot.booked == 1

    shop.post(f"/orders/{order.pk}/delivery/", {"slot": ""})

    slot.refresh_from_db()
    assert slot.booked == 0


def test_a_slot_somebody_else_took_meanwhile_is_told(
    shop: Client, order: Order, slot: DeliverySlot
) -> None:
    DeliverySlot.objects.update(booked=1)

    page = shop.post(f"/orders/{order.pk}/delivery/", {"slot": slot.pk}, follow=True)

    assert "not free any more" in page.content.decode()


@pytest.mark.parametrize("slot_id", ["404", "x", "9" * 30])
def test_a_slot_that_does_not_exist_is_refused(shop: Client, order: Order, slot_id: str) -> None:
    page = shop.post(f"/orders/{order.pk}/delivery/", {"slot": slot_id})

    assert page.status_code == 422


def test_a_stranger_finds_nothing_of_the_order(
    stranger: Client, order: Order, slot: DeliverySlot
) -> None:
    bookings.book(order, slot)

    codes = [
        stranger.get(f"/orders/{order.pk}/delivery/").status_code,
        stranger.post(f"/orders/{order.pk}/delivery/", {"slot": ""}).status_code,
        stranger.post(f"/orders/{order.pk}/cancel/").status_code,
    ]

    slot.refresh_from_db()
    assert (codes, slot.booked) == ([404, 404, 404], 1)


def test_wishes_about_messages_are_kept(shop: Client, retailer: Retailer) -> None:
    ticked = {f"{topic}_{channel}": "on" for topic in Topic for channel in Channel}
    del ticked["reminders_sms"]
    form = {"wants_whatsapp": "on", "language": "de", "quiet_from": "22:00", "quiet_until": "07:00"}

    assert shop.post("/orders/settings/", {**form, **ticked}).status_code == 302

    retailer.refresh_from_db()
    assert (retailer.language, retailer.wants_sms) == ("de", False)
    assert preferences.refusals(retailer) == {(Topic.REMINDERS, Channel.SMS)}
    assert "22:00" in shop.get("/orders/settings/").content.decode()


def test_half_of_quiet_hours_is_explained(shop: Client, retailer: Retailer) -> None:
    page = shop.post("/orders/settings/", {"language": "en", "quiet_from": "22:00"})

    assert page.status_code == 422
    assert "both times" in page.content.decode()


@pytest.mark.parametrize("path", ["credit/", "settings/", "1/delivery/"])
def test_nobody_sees_them_without_logging_in(client: Client, path: str) -> None:
    answer = client.get(f"/orders/{path}")

    assert answer.url.startswith("/accounts/login/")  # type: ignore[attr-defined]
