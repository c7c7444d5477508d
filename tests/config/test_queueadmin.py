"""What the console says about the business's jobs."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.queueadmin import Resolver
from notifications.models import Delivery
from orders.models import Order
from queueadmin.models import Job
from queueadmin.testing import run_jobs
from tests.business import Sandbox

pytestmark = pytest.mark.django_db


def job(**fields: object) -> Job:
    return Job(**{"id": "1", "actor": "send_whatsapp", "message": b"", "subject": "", **fields})


def test_a_job_is_described_in_words_without_a_query(order: Order) -> None:
    described = Job.objects.for_list().get(actor="route_order")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        text = Resolver().describe(described)

    assert text == f"Order {order.pk}: choice of a vendor"
    assert not queries.captured_queries


def test_a_message_is_linked_to_order_delivery_and_shop(sandbox: Sandbox, order: Order) -> None:
    run_jobs()

    links = Resolver().links(Job.objects.get(actor="send_sms"))

    delivery = Delivery.objects.get(channel="sms")
    assert [link.url for link in links] == [
        f"/admin/orders/order/{order.pk}/change/",
        f"/admin/notifications/delivery/{delivery.pk}/change/",
        f"/admin/orders/retailer/{order.retailer_id}/change/",
    ]
    assert links[2].label == "Harbour Shop"


def test_a_confirmation_is_linked_to_order_and_shop(order: Order) -> None:
    links = Resolver().links(Job.objects.get(actor="route_order"))

    assert [link.label for link in links] == [f"Order {order.pk}", "Harbour Shop"]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"subject": "orders.order:404"},
        {"subject": "orders.order:<b>"},
        {"subject": "no.such:1"},
        {"subject": ":::"},
        {"subject": "orders.order:" + "9" * 100},
        {"actor": "somebody_elses"},
        {"message": b"\xff"},
        {"message": b"[]"},
        {"message": b'{"args": null}'},
        {"message": b'{"args": [{"a": 1}]}'},
        {"message": b'{"args": ["1; DROP"]}'},
        {"message": b'{"args": [99999999999999999999999]}'},
    ],
)
def test_odd_jobs_are_described_and_have_no_links(odd: dict[str, object]) -> None:
    assert Resolver().describe(job(**odd))
    assert Resolver().links(job(**odd)) == []
