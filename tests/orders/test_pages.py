"""The shop's pages: order, follow, and see nothing of others."""

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from notifications.sandbox import Sandbox
from orders.models import Order, Product, Retailer
from queueadmin.models import Job
from queueadmin.testing import run_jobs
from tests.business import plan

pytestmark = pytest.mark.django_db

NEW = "/orders/new/"


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


def choose(product: Product, quantity: object, **more: object) -> dict[str, object]:
    return {"token": str(uuid.uuid4()), f"quantity_{product.pk}": quantity, **more}


def test_logging_in_leads_to_the_orders(client: Client, retailer: Retailer) -> None:
    retailer.user.set_password("secret")
    retailer.user.save()

    assert client.get("/").url == "/orders/"  # type: ignore[attr-defined]
    assert client.get("/orders/").url == "/accounts/login/?next=/orders/"  # type: ignore[attr-defined]
    page = client.post("/accounts/login/", {"username": "shop", "password": "secret"}, follow=True)

    assert page.redirect_chain[-1][0] == "/orders/"
    assert "You have not ordered anything yet" in page.content.decode()


def test_a_wrong_password_is_told_without_a_hint_which_part_was_wrong(
    client: Client, retailer: Retailer
) -> None:
    page = client.post("/accounts/login/", {"username": "shop", "password": "wrong"})

    assert "do not match" in page.content.decode()


def test_an_order_is_saved_and_answered_before_any_provider_is_called(
    shop: Client, tea: Product, salt: Product, sandbox: Sandbox
) -> None:
    answer = shop.post(NEW, choose(tea, 2, **{f"quantity_{salt.pk}": ""}))

    order = Order.objects.get()
    assert answer.status_code == 302
    assert answer.url == f"/orders/{order.pk}/"  # type: ignore[attr-defined]
    assert not sandbox.messages
    assert Job.objects.about(order).filter(actor="route_order").count() == 1


def test_the_order_page_shows_lines_history_and_messages(
    shop: Client, order: Order, sandbox: Sandbox
) -> None:
    run_jobs()

    text = shop.get(f"/orders/{order.pk}/").content.decode()

    for expected in ("Black tea (case)", "83.00 EUR", "waiting for the vendor", "WhatsApp", "sent"):
        assert expected in text


def test_pressing_twice_makes_one_order(shop: Client, tea: Product) -> None:
    data = choose(tea, 1)

    first, second = shop.post(NEW, data), shop.post(NEW, data)

    assert Order.objects.count() == 1
    assert first.url == second.url  # type: ignore[attr-defined]


@pytest.mark.parametrize("quantity", ["0", "", "-1", "1000", "1.5", "two", "9" * 500])
def test_a_quantity_that_makes_no_order_is_explained(
    shop: Client, tea: Product, quantity: str
) -> None:
    page = shop.post(NEW, choose(tea, quantity))

    assert page.status_code == 422
    assert 'role="alert"' in page.content.decode() or "errorlist" in page.content.decode()
    assert not Order.objects.exists()


@pytest.mark.parametrize("token", ["", "no-uuid", "0" * 500])
def test_a_form_without_its_token_is_not_placed(shop: Client, tea: Product, token: str) -> None:
    page = shop.post(NEW, choose(tea, 1, token=token))

    assert page.status_code == 422
    assert "out of date" in page.content.decode()


def test_a_product_that_left_the_catalogue_is_told(shop: Client, tea: Product) -> None:
    data = choose(tea, 1)
    Product.objects.filter(pk=tea.pk).update(is_active=False)

    page = shop.post(NEW, data)

    assert page.status_code == 422
    assert "not sold any more" in page.content.decode()


def test_another_shops_order_is_not_found(stranger: Client, order: Order) -> None:
    assert stranger.get(f"/orders/{order.pk}/").status_code == 404
    assert stranger.post(f"/orders/{order.pk}/cancel/").status_code == 404
    assert f"/orders/{order.pk}/" not in stranger.get("/orders/").content.decode()
    order.refresh_from_db()
    assert order.state == "placed"


def test_an_order_number_beyond_any_database_is_not_found(shop: Client) -> None:
    assert shop.get(f"/orders/{2**70}/").status_code == 404


def test_nobody_sees_anything_without_logging_in(client: Client, order: Order) -> None:
    for path in ("/orders/", NEW, f"/orders/{order.pk}/"):
        assert client.get(path).url.startswith("/accounts/login/")  # type: ignore[attr-defined]


def test_an_account_without_a_shop_is_refused_and_staff_go_to_the_admin(client: Client) -> None:
    client.force_login(User.objects.create_user("nobody"))
    assert client.get("/orders/").status_code == 403

    client.force_login(User.objects.create_user("anna", is_staff=True))
    assert client.get("/orders/").url == "/admin/"  # type: ignore[attr-defined]


def test_a_shop_cancels_its_order(shop: Client, order: Order) -> None:
    page = shop.post(f"/orders/{order.pk}/cancel/", follow=True)
    again = shop.post(f"/orders/{order.pk}/cancel/", follow=True)

    assert "The order is cancelled." in page.content.decode()
    assert "cannot be cancelled any more" in again.content.decode()


def test_hostile_names_are_shown_as_text(shop: Client, order: Order, retailer: Retailer) -> None:
    hostile = "<script>alert(1)</script>"
    Retailer.objects.update(name=hostile)
    Product.objects.update(name=hostile)
    order.lines.update(name=hostile)
    plan(order)

    for path in ("/orders/", NEW, f"/orders/{order.pk}/"):
        text = shop.get(path).content.decode()
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_pages_forbid_inline_code_and_contain_none(shop: Client, order: Order) -> None:
    for path in ("/orders/", NEW, f"/orders/{order.pk}/"):
        page = shop.get(path)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "style=" not in page.content.decode()
        assert "<script" not in page.content.decode()


def test_the_list_needs_the_same_queries_for_any_number_of_orders(
    shop: Client, order: Order, django_assert_max_num_queries: object
) -> None:
    for _order in range(5):
        Order.objects.create(
            retailer=order.retailer,
            token=uuid.uuid4(),
            currency="EUR",
            total=1,
            placed_at=order.placed_at,
            changed_at=order.placed_at,
        )

    with django_assert_max_num_queries(5):  # type: ignore[operator]
        assert shop.get(reverse("orders:list")).status_code == 200


def test_a_page_number_that_makes_no_sense_shows_a_page(shop: Client, order: Order) -> None:
    for number in ("0", "-1", "x", "9" * 30):
        assert shop.get("/orders/", {"page": number}).status_code == 200
