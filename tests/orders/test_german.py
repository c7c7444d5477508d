"""A browser that asks for German gets German pages: nothing on them is left in English.

Each page is fetched in both languages. A text that is the same in both must be somebody's
name or a fact; anything else was never marked for translation, or has no words.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from notifications import optouts, receipts
from notifications.models import Channel, Delivery, ReceiptStatus
from notifications.receipts import Word
from notifications.sandbox import Sandbox
from orders import bookings, credit, links, workflow
from orders.basket import Item
from orders.models import (
    CreditAccount,
    DeliverySlot,
    Invoice,
    Order,
    Payment,
    Product,
    RequestState,
    Retailer,
    VendorRequest,
)
from orders.workflow import place_order
from queueadmin.testing import run_jobs
from tests.business import asked, make_vendor

pytestmark = pytest.mark.django_db

#: Words that are the same in both languages, and the names of the fixtures.
SAME = {"WhatsApp", "SMS", "Deutsch", "English", "EUR", "Name"}
NAMES = (
    "shop@example.com",
    "Harbour Shop",
    "Black tea",
    "Sea salt",
    "case",
    "North Wholesale",
    "shop",
)
WORD = re.compile(r"[^\W\d_]{2,}")
#: Attributes that are read out or shown.
READ = ("alt", "aria-label", "placeholder", "title")


class Texts(HTMLParser):
    """The texts of a page, and its language."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.language = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "html":
            self.language = values.get("lang") or ""
        self.found += [value for name in READ if (value := values.get(name))]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append(" ".join(data.split()))


def words(text: str) -> list[str]:
    """Return the words of a text that are nobody's name."""
    for name in NAMES:
        text = text.replace(name, "")
    return [word for word in WORD.findall(text) if word not in SAME]


def assert_is_german(ask: Callable[..., Any], status: int = 200) -> None:
    """Ask for a page in both languages and compare what it says."""
    pages = {}
    for language in ("en", "de"):
        answer: HttpResponse = ask(headers={"accept-language": language})
        assert answer.status_code == status
        pages[language] = Texts(answer.content.decode())
        assert pages[language].language == language
    english, german = pages["en"].found, pages["de"].found
    left = {text for text in english if words(text)} & set(german)
    assert not left
    assert len(english) == len(german)


@pytest.fixture
def shop(client: Client, retailer: Retailer) -> Client:
    client.force_login(retailer.user)
    return client


@pytest.fixture
def account(retailer: Retailer) -> CreditAccount:
    return CreditAccount.objects.create(retailer=retailer, limit=Decimal(500))


@pytest.fixture
def slot(db: None) -> DeliverySlot:
    start = timezone.now() + timedelta(days=2)
    return DeliverySlot.objects.create(
        starts_at=start, ends_at=start + timedelta(hours=2), capacity=9
    )


def test_the_log_in_speaks_german(client: Client) -> None:
    wrong = {"username": "shop", "password": "wrong"}

    assert_is_german(lambda **how: client.get("/accounts/login/", **how))
    assert_is_german(lambda **how: client.post("/accounts/login/", wrong, **how))


def test_the_list_of_orders_speaks_german(shop: Client, retailer: Retailer, tea: Product) -> None:
    assert_is_german(lambda **how: shop.get("/orders/", **how))

    for _order in range(26):
        place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
    for page in (1, 2):
        assert_is_german(lambda page=page, **how: shop.get(f"/orders/?page={page}", **how))


def test_a_new_order_speaks_german(shop: Client, tea: Product, account: CreditAccount) -> None:
    quantity = f"quantity_{tea.pk}"
    token = "5e0b8b5e-6c43-4a35-9d1c-6a0a1f0e7d11"

    def post(**fields: object) -> Callable[..., Any]:
        return lambda **how: shop.post("/orders/new/", {"token": token, **fields}, **how)

    assert_is_german(lambda **how: shop.get("/orders/new/", **how))
    assert_is_german(post(), 422)
    assert_is_german(post(token="x"), 422)
    assert_is_german(post(**{quantity: "-1"}), 422)
    assert_is_german(post(**{quantity: "x"}), 422)
    assert_is_german(post(**{quantity: 1, "quantity_404": 2}), 422)
    assert_is_german(post(**{quantity: 900, "payment": "credit"}), 422)
    assert_is_german(post(**{quantity: 1, "payment": "barter"}), 422)
    Product.objects.update(is_active=False)
    assert_is_german(lambda **how: shop.get("/orders/new/", **how))


def test_an_order_speaks_german_at_every_step(
    shop: Client, sandbox: Sandbox, retailer: Retailer, tea: Product, slot: DeliverySlot
) -> None:
    def look(order: Order) -> None:
        assert_is_german(lambda **how: shop.get(f"/orders/{order.pk}/", **how))

    make_vendor("North Wholesale", tea)
    order = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=retailer.user)
    look(order)
    bookings.book(order, slot)
    look(order)
    workflow.answer(asked(order), accepted=True, note="123")
    look(order)
    run_jobs()
    for status, delivery in zip(ReceiptStatus, Delivery.objects.to(retailer), strict=False):
        word = Word("x", "1", str(delivery.reference), status, timezone.now())
        assert receipts.take(word)
    look(order)
    workflow.dispatch(order, by=None)
    workflow.deliver(order, by=None)
    run_jobs()
    look(order)


def test_orders_that_ended_otherwise_speak_german(
    shop: Client, sandbox: Sandbox, retailer: Retailer, tea: Product, salt: Product
) -> None:
    make_vendor("North Wholesale", tea)

    def placed(product: Product = tea) -> Order:
        return place_order(retailer=retailer, lines=[Item(product.pk, 1)], by=retailer.user)

    refused, silent, late, nobody, cancelled = placed(), placed(), placed(), placed(salt), placed()
    workflow.answer(asked(refused), accepted=False)
    request = asked(silent)
    VendorRequest.objects.filter(pk=request.pk).update(expires_at=timezone.now())
    assert workflow.give_up_on(request.pk)
    Order.objects.filter(pk=late.pk).update(expires_at=timezone.now())
    assert workflow.expire(late.pk)
    assert workflow.route(nobody.pk)
    workflow.cancel(cancelled, by=retailer.user)

    for order in (refused, silent, late, nobody, cancelled):
        assert_is_german(lambda pk=order.pk, **how: shop.get(f"/orders/{pk}/", **how))
    cancel = f"/orders/{cancelled.pk}/cancel/"
    assert_is_german(lambda **how: shop.post(cancel, follow=True, **how))


def test_delivery_times_speak_german(shop: Client, order: Order, slot: DeliverySlot) -> None:
    address = f"/orders/{order.pk}/delivery/"

    assert_is_german(lambda **how: shop.get(address, **how))
    assert_is_german(lambda **how: shop.post(address, {"slot": "404"}, **how), 422)
    assert_is_german(lambda **how: shop.post(address, {"slot": slot.pk}, follow=True, **how))
    assert_is_german(lambda **how: shop.post(address, {"slot": ""}, follow=True, **how))
    DeliverySlot.objects.update(booked=9)
    assert_is_german(lambda **how: shop.post(address, {"slot": slot.pk}, follow=True, **how))
    assert_is_german(lambda **how: shop.get(address, **how))
    workflow.cancel(order, by=order.retailer.user)
    assert_is_german(lambda **how: shop.post(address, {"slot": slot.pk}, follow=True, **how))


def test_credit_speaks_german(shop: Client, retailer: Retailer, tea: Product) -> None:
    make_vendor("North Wholesale", tea)
    assert_is_german(lambda **how: shop.get("/orders/credit/", **how))
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(500))
    assert_is_german(lambda **how: shop.get("/orders/credit/", **how))
    for _order in range(2):
        order = place_order(
            retailer=retailer, lines=[Item(tea.pk, 1)], by=None, payment=Payment.CREDIT
        )
        workflow.answer(asked(order), accepted=True)
        workflow.dispatch(order, by=None)
        workflow.deliver(order, by=None)
    Invoice.objects.filter(order=order).update(due_at=timezone.now() - timedelta(days=1))
    credit.record_payment(account, Decimal("1.00"), by=retailer.user)
    assert_is_german(lambda **how: shop.get("/orders/credit/", **how))


def test_wishes_about_messages_speak_german(shop: Client, retailer: Retailer) -> None:
    for channel in Channel:
        optouts.add(channel, retailer.notification_address(channel), source="link")
    half = {"language": "xx", "quiet_from": "22:00"}

    assert_is_german(lambda **how: shop.get("/orders/settings/", **how))
    assert_is_german(lambda **how: shop.post("/orders/settings/", half, **how), 422)
    whole = {"language": "de", "quiet_from": "22:00", "quiet_until": "07:00"}
    assert_is_german(lambda **how: shop.post("/orders/settings/", whole, follow=True, **how))


@pytest.mark.parametrize("state", RequestState)
def test_the_vendors_page_speaks_german(client: Client, order: Order, state: RequestState) -> None:
    request = asked(order)
    address = f"/vendor/{links.token(request)}/"
    VendorRequest.objects.filter(pk=request.pk).update(state=state)

    gone = state in (RequestState.SILENT, RequestState.WITHDRAWN)
    assert_is_german(lambda **how: client.get(address, **how), 410 if gone else 200)


def test_the_page_that_stops_mails_speaks_german(client: Client, retailer: Retailer) -> None:
    path = optouts.url(retailer.email).removeprefix(settings.SITE_URL.rstrip("/"))

    assert_is_german(lambda **how: client.get(path, **how))
    assert_is_german(lambda **how: client.post(path, **how))


def test_what_goes_wrong_is_said_in_german(
    shop: Client, retailer: Retailer, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_is_german(lambda **how: shop.get("/nowhere/", **how), 404)
    careful = Client(enforce_csrf_checks=True)
    assert_is_german(lambda **how: careful.post("/accounts/login/", **how), 403)
    stranger = Client()
    stranger.force_login(django_user_model.objects.create_user("nobody"))
    assert_is_german(lambda **how: stranger.get("/orders/", **how), 403)
    assert_is_german(lambda **how: stranger.get("/orders/pictures/1/small.jpg", **how), 404)
    broken = Client(raise_request_exception=False)
    broken.force_login(retailer.user)
    monkeypatch.setattr("orders.views.Paginator", None)
    assert_is_german(lambda **how: broken.get("/orders/", **how), 500)


def test_a_language_we_do_not_speak_gets_english(client: Client) -> None:
    page = client.get("/accounts/login/", headers={"accept-language": "fr, de;q=0.5"})
    other = client.get("/accounts/login/", headers={"accept-language": "fr"})

    assert page.headers["Content-Language"] == "de"
    assert other.headers["Content-Language"] == "en"
    assert "Accept-Language" in page.headers["Vary"]
