"""Who is told about an event, once."""

import pytest

from notifications.announcing import announce
from notifications.models import Channel, Delivery, Event
from orders.models import Order

pytestmark = pytest.mark.django_db


def tell(order: Order, *channels: Channel) -> list[Delivery]:
    return announce(
        Event.ORDER_CONFIRMED,
        subject=order,
        recipient=order.retailer,
        channels=channels,
        context={"name": "Harbour Shop"},
    )


def test_each_channel_gets_one_delivery_however_often_it_is_announced(order: Order) -> None:
    first = tell(order, Channel.SMS, Channel.SMS)
    second = tell(order, Channel.SMS, Channel.EMAIL)

    assert [delivery.channel for delivery in first] == [Channel.SMS]
    assert [delivery.channel for delivery in second] == [Channel.EMAIL]
    assert Delivery.objects.about(order).count() == 2


def test_nobody_is_told_by_no_channel(order: Order) -> None:
    assert tell(order) == []


def test_a_recipient_without_an_address_is_a_mistake_of_the_program(order: Order) -> None:
    with pytest.raises(TypeError, match="no notification address"):
        announce(Event.ORDER_CONFIRMED, subject=order, recipient=order, channels=[], context={})
