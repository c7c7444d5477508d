"""Staff see an order with everything about it, and mend what may be mended."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from notifications.sandbox import Sandbox
from orders.models import Order, Retailer
from queueadmin.models import DeadLetter
from queueadmin.testing import run_jobs
from tests.business import PHONE, plan

pytestmark = pytest.mark.django_db


def log_in(client: Client, *permissions: str) -> User:
    user = User.objects.create_user("anna", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return user


def test_an_order_shows_its_history_messages_and_jobs(
    client: Client, sandbox: Sandbox, order: Order
) -> None:
    run_jobs()
    log_in(client, "view_order", "view_delivery", "view_job", "view_orderline", "view_orderevent")

    text = client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()

    for expected in ("Black tea (case)", "waiting for the vendor", "wamid.", "route_order"):
        assert expected in text


def test_messages_and_jobs_are_hidden_from_those_who_may_not_see_them(
    client: Client, sandbox: Sandbox, order: Order
) -> None:
    run_jobs()
    log_in(client, "view_order")

    text = client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()

    assert "wamid." not in text
    assert "route_order" not in text


def test_nobody_edits_an_order_by_hand(client: Client, order: Order) -> None:
    client.force_login(User.objects.create_superuser("admin"))

    answer = client.post(f"/admin/orders/order/{order.pk}/change/", {"state": "delivered"})

    order.refresh_from_db()
    assert answer.status_code == 403
    assert order.state == "placed"


def test_a_wrong_number_is_refused_with_an_example(client: Client, retailer: Retailer) -> None:
    log_in(client, "view_retailer", "change_retailer", "view_user")
    form = {"name": "x", "user": retailer.user_id, "email": "a@example.com", "phone": "0170 1"}

    page = client.post(f"/admin/orders/retailer/{retailer.pk}/change/", form)

    assert "such as +447700900123" in page.content.decode()


@pytest.mark.parametrize(
    "page", ["orders/order", "orders/retailer", "orders/product", "notifications/delivery"]
)
def test_the_lists_open_with_hostile_names(client: Client, order: Order, page: str) -> None:
    Retailer.objects.update(name="<script>alert(1)</script>")
    plan(Order.objects.get())
    client.force_login(User.objects.create_superuser("admin"))

    answer = client.get(f"/admin/{page}/")

    assert answer.status_code == 200
    assert "<script>alert" not in answer.content.decode()


def test_a_failure_is_linked_from_its_order_and_back(
    client: Client, sandbox: Sandbox, order: Order
) -> None:
    sandbox.fail("whatsapp", PHONE, fault="bad_recipient")
    run_jobs()
    letter = DeadLetter.objects.get()
    log_in(client, "view_order", "view_job", "view_deadletter")

    page = client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()
    back = client.get(f"/admin/queueadmin/deadletter/{letter.pk}/change/").content.decode()

    assert f"/admin/queueadmin/deadletter/{letter.pk}/change/" in page
    assert f"/admin/orders/order/{order.pk}/change/" in back
