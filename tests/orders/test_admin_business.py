"""Staff move orders on, record payments and slots; each by its own permission."""

import uuid
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from orders import credit, workflow
from orders.models import CreditAccount, CreditEntry, Order, Retailer
from tests.business import confirm

pytestmark = pytest.mark.django_db


def log_in(client: Client, *permissions: str) -> User:
    user = User.objects.create_user("anna", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return user


def step(client: Client, order: Order, name: str) -> int:
    return client.post(f"/admin/orders/order/{order.pk}/step/{name}/").status_code


def test_an_order_is_moved_on_by_buttons_and_says_who_did_it(client: Client, order: Order) -> None:
    confirm(order)
    log_in(client, "view_order", "handle_order")
    page = client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()
    assert f"/{order.pk}/step/dispatch/" in page
    assert f"/{order.pk}/step/deliver/" not in page

    codes = [step(client, order, name) for name in ("dispatch", "deliver", "deliver", "cancel")]

    order.refresh_from_db()
    assert (codes, order.state) == ([302] * 4, "delivered")
    assert order.history.last().user_name == "anna"  # type: ignore[union-attr]
    assert order.history.filter(state="delivered").count() == 1


@pytest.mark.parametrize("name", ["dispatch", "deliver", "cancel"])
def test_moving_an_order_needs_its_own_permission_and_a_post(
    client: Client, order: Order, name: str
) -> None:
    confirm(order)
    log_in(client, "view_order", "change_order")

    assert step(client, order, name) == 403
    assert client.get(f"/admin/orders/order/{order.pk}/step/{name}/").status_code == 405
    order.refresh_from_db()
    assert order.state == "confirmed"


def test_an_unknown_step_is_not_found(client: Client, order: Order) -> None:
    log_in(client, "handle_order")

    assert step(client, order, "explode") == 404


def test_a_payment_is_recorded_once_however_often_it_is_sent(
    client: Client, retailer: Retailer
) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "view_creditaccount", "record_payment")
    url = f"/admin/orders/creditaccount/{account.pk}/payment/"
    form = {"amount": "12.50", "note": "bank 7", "token": str(uuid.uuid4())}

    assert "owes 0.00 EUR" in client.get(url).content.decode()
    codes = [client.post(url, form).status_code for _click in range(2)]

    account.refresh_from_db()
    assert (codes, account.balance) == ([302, 302], Decimal("-12.50"))


@pytest.mark.parametrize("amount", ["", "0", "-5", "1.234", "NaN", "1e9999", "x"])
def test_a_payment_that_is_none_is_explained(
    client: Client, retailer: Retailer, amount: str
) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "record_payment")

    page = client.post(
        f"/admin/orders/creditaccount/{account.pk}/payment/",
        {"amount": amount, "token": str(uuid.uuid4())},
    )

    assert page.status_code == 422
    assert not CreditEntry.objects.exists()


def test_recording_payments_needs_its_own_permission(client: Client, retailer: Retailer) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "view_creditaccount", "change_creditaccount")

    url = f"/admin/orders/creditaccount/{account.pk}/payment/"
    assert client.post(url, {"amount": "1", "token": str(uuid.uuid4())}).status_code == 403


def test_a_balance_is_corrected_once_however_often_it_is_sent(
    client: Client, retailer: Retailer
) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "view_creditaccount", "correct_balance")
    url = f"/admin/orders/creditaccount/{account.pk}/correction/"
    form = {"amount": "-3.00", "reason": "broken eggs", "token": str(uuid.uuid4())}

    codes = [client.post(url, form).status_code for _click in range(2)]
    without_reason = client.post(url, {**form, "reason": " ", "token": str(uuid.uuid4())})

    account.refresh_from_db()
    assert (codes, without_reason.status_code) == ([302, 302], 422)
    assert account.balance == Decimal("-3.00")
    assert CreditEntry.objects.get().note == "broken eggs"


def test_a_drift_is_shown_on_its_account_and_set_right_by_its_form(
    client: Client, retailer: Retailer
) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "view_creditaccount", "correct_balance")
    page, url = (
        f"/admin/orders/creditaccount/{account.pk}/{part}/" for part in ("change", "drift")
    )
    assert url not in client.get(page).content.decode()
    CreditAccount.objects.update(balance=Decimal("7.00"))
    credit.reconcile([account.pk])
    assert url in client.get(page).content.decode()

    asked = client.get(url).content.decode()
    form = {"difference": "7.00", "reason": "typed"}
    codes = [client.post(url, form).status_code for _click in range(2)]

    account.refresh_from_db()
    assert 'name="difference" value="7.00"' in asked
    assert (codes, account.balance) == ([302, 422], Decimal(0))
    assert url not in client.get(page).content.decode()


@pytest.mark.parametrize(
    ("act", "form"),
    [
        ("correction", {"amount": "1", "reason": "x", "token": str(uuid.uuid4())}),
        ("drift", {"difference": "7.00", "reason": "x"}),
    ],
)
def test_correcting_a_balance_needs_its_own_permission(
    client: Client, retailer: Retailer, act: str, form: dict[str, str]
) -> None:
    account = CreditAccount.objects.create(
        retailer=retailer, limit=Decimal(100), balance=Decimal(7)
    )
    log_in(client, "view_creditaccount", "change_creditaccount", "record_payment")
    url = f"/admin/orders/creditaccount/{account.pk}/{act}/"

    assert client.get(url).status_code == 403
    assert client.post(url, form).status_code == 403
    account.refresh_from_db()
    assert account.balance == Decimal(7)


def test_a_balance_cannot_be_typed(client: Client, retailer: Retailer) -> None:
    account = CreditAccount.objects.create(retailer=retailer, limit=Decimal(100))
    log_in(client, "view_creditaccount", "change_creditaccount")

    client.post(
        f"/admin/orders/creditaccount/{account.pk}/change/",
        {"limit": "50", "terms_days": "14", "balance": "-1000", "score": "1000"},
    )

    account.refresh_from_db()
    assert (account.limit, account.balance, account.score) == (Decimal(50), Decimal(0), 600)


@pytest.mark.parametrize(
    "page",
    [
        "orders/creditaccount/",
        "orders/creditentry/",
        "orders/creditdrift/",
        "orders/invoice/",
        "orders/deliveryslot/",
        "orders/deliveryslot/add/",
        "orders/report/",
        "orders/report/add/",
        "orders/subscriber/add/",
        "orders/vendor/",
        "orders/product/add/",
        "notifications/optout/",
        "notifications/incoming/",
        "notifications/delivery/templates/",
    ],
)
def test_every_page_of_the_business_opens(client: Client, order: Order, page: str) -> None:
    account = CreditAccount.objects.create(retailer=order.retailer, limit=Decimal(100))
    account.entries.create(kind="payment", amount=1, at=order.placed_at)
    workflow.route(order.pk)
    client.force_login(User.objects.create_superuser("admin"))

    assert client.get(f"/admin/{page}").status_code == 200
