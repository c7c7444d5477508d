"""A provider that wants a pause gets it from everybody; refusals are kept."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from notifications import preferences
from notifications.announcing import announce
from notifications.exceptions import PairThrottled, RetryLater
from notifications.models import Channel, Delivery, Event, Pause, Topic
from notifications.sandbox import Sandbox
from orders.models import Order
from queueadmin.models import Job
from queueadmin.states import JobState
from queueadmin.testing import run_jobs
from tests.business import PHONE

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOON, tick=False) as clock:
        yield clock


def tell(
    order: Order, event: Event = Event.ORDER_CONFIRMED, occasion: str = "", **more: object
) -> Delivery:
    (delivery,) = announce(
        event,
        subject=order,
        recipient=order.retailer,
        channels=[Channel.WHATSAPP],
        context={"name": "n", "order": "1", "total": "1", "vendor": "v", **more},
        occasion=occasion,
    )
    return delivery


@pytest.fixture
def quiet_order(sandbox: Sandbox, order: Order) -> Order:
    """An order whose own messages are out of the way."""
    run_jobs()
    sandbox.reset()
    return order


def states() -> list[str]:
    return list(
        Delivery.objects.filter(event=Event.ORDER_CONFIRMED)
        .order_by("pk")
        .values_list("state", flat=True)
    )


def test_one_throttled_message_holds_the_others_back_and_costs_them_no_attempt(
    sandbox: Sandbox, quiet_order: Order, clock: Any
) -> None:
    sandbox.fail("whatsapp", fault="throttled", times=1)
    for number in range(4):
        tell(quiet_order, occasion=str(number))

    run_jobs()
    assert sorted(states()) == ["failed", "pending", "pending", "pending"]
    clock.move_to(NOON + timedelta(seconds=3))
    run_jobs()

    assert states() == ["sent"] * 4
    done = Job.objects.filter(actor="send_whatsapp", state=JobState.COMPLETED)
    assert sorted(done.values_list("attempts", flat=True))[-1] == 2
    assert list(done.values_list("attempts", flat=True)).count(2) == 1


def test_the_pair_limit_spaces_messages_to_one_number_and_leaves_others_alone(
    sandbox: Sandbox, quiet_order: Order, clock: Any
) -> None:
    sandbox.fail("whatsapp", PHONE, fault="pair_throttled", times=1)
    for number in range(4):
        tell(quiet_order, occasion=str(number))
    counts = []

    for seconds in (0, 6, 12, 18, 24):
        clock.move_to(NOON + timedelta(seconds=seconds, milliseconds=200))
        run_jobs()
        counts.append(states().count("sent"))

    assert Pause.objects.get().address == PHONE
    assert counts[0] == 0
    assert counts[-1] == 4
    assert max(later - former for former, later in itertools.pairwise(counts)) <= 2


def test_a_pair_limit_names_its_wait() -> None:
    error = PairThrottled("x", delay_ms=6000, provider="whatsapp")

    assert isinstance(error, RetryLater)


def test_a_refused_topic_is_left_out_on_that_channel_only(order: Order) -> None:
    preferences.refuse(order.retailer, [(Topic.ORDERS, Channel.SMS)])

    made = announce(
        Event.ORDER_DELIVERED,
        subject=order,
        recipient=order.retailer,
        channels=list(Channel),
        context={},
    )

    assert {delivery.channel for delivery in made} == {Channel.WHATSAPP, Channel.EMAIL}
    assert preferences.refusals(order.retailer) == {(Topic.ORDERS, Channel.SMS)}
