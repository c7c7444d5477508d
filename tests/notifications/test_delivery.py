"""A delivery is sent at most once, and its row says what became of it."""

from typing import Any

import httpx2
import pytest
from django.db import transaction
from pytest_django import Settings

from notifications import delivery as deliveries
from notifications.channels import base, whatsapp
from notifications.exceptions import (
    DeliveryMissing,
    MessageRejected,
    OutcomeUnknown,
    ProviderUnavailable,
    RecipientRejected,
    RetryLater,
)
from notifications.models import Channel, Delivery, DeliveryState
from notifications.sandbox import Sandbox
from orders.models import Order
from queueadmin.exceptions import PermanentError
from tests.business import PHONE, plan

pytestmark = pytest.mark.django_db


def test_a_sent_delivery_records_the_providers_message_id(sandbox: Sandbox, order: Order) -> None:
    delivery = plan(order)

    deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    (message,) = sandbox.messages
    assert delivery.state == DeliveryState.SENT
    assert (delivery.provider, delivery.provider_message_id) == ("whatsapp", message.id)
    assert (delivery.address, message.recipient) == (PHONE, PHONE)
    assert message.reference == str(delivery.reference)
    assert delivery.sent_at is not None


def test_a_second_run_of_a_sent_delivery_sends_nothing(sandbox: Sandbox, order: Order) -> None:
    delivery = plan(order)
    deliveries.send(delivery.pk)

    deliveries.send(delivery.pk)

    assert len(sandbox.messages) == 1


def test_a_refused_number_is_permanent_and_names_code_and_text(
    sandbox: Sandbox, order: Order
) -> None:
    delivery = plan(order)
    sandbox.fail("whatsapp", PHONE, fault="bad_recipient")

    with pytest.raises(RecipientRejected, match="131026") as raised:
        deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert isinstance(raised.value, PermanentError)
    assert (raised.value.code, delivery.error_code) == ("131026", "131026")
    assert "not a WhatsApp number" in delivery.error_text
    assert delivery.state == DeliveryState.FAILED


def test_a_corrected_number_is_used_by_the_next_run(sandbox: Sandbox, order: Order) -> None:
    delivery = plan(order)
    type(order.retailer).objects.update(phone="not a number")
    with pytest.raises(RecipientRejected, match="not a number"):
        deliveries.send(delivery.pk)
    type(order.retailer).objects.update(phone="+447700900456")

    deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert [message.recipient for message in sandbox.messages] == ["+447700900456"]
    assert (delivery.state, delivery.error_code) == (DeliveryState.SENT, "")


@pytest.mark.parametrize("channel", [Channel.WHATSAPP, Channel.SMS])
def test_an_outage_is_a_failure_that_may_be_tried_again(
    sandbox: Sandbox, order: Order, channel: Channel
) -> None:
    delivery = plan(order, channel)
    sandbox.fail(channel.value, times=1)
    with pytest.raises(ProviderUnavailable):
        deliveries.send(delivery.pk)
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.FAILED

    deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.SENT
    assert len(sandbox.messages) == 1


@pytest.mark.parametrize("channel", list(Channel))
def test_throttling_is_retried_when_the_provider_says(
    sandbox: Sandbox, order: Order, channel: Channel
) -> None:
    delivery = plan(order, channel)
    sandbox.fail(channel.value, fault="throttled")

    with pytest.raises(RetryLater) as raised:
        deliveries.send(delivery.pk)

    assert raised.value.delay_ms == 2000
    assert not sandbox.messages


@pytest.mark.parametrize(("fault", "arrived"), [("lost_answer", 1), ("lost_request", 0)])
@pytest.mark.parametrize("channel", list(Channel))
def test_an_answer_that_never_came_leaves_the_outcome_to_a_person(
    sandbox: Sandbox, order: Order, channel: Channel, fault: str, arrived: int
) -> None:
    delivery = plan(order, channel)
    sandbox.fail(channel.value, fault=fault, times=1)

    for _run in range(2):
        with pytest.raises(OutcomeUnknown):
            deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.UNKNOWN
    assert len(sandbox.messages) == arrived


def test_a_provider_slower_than_our_patience_is_unknown(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TIMEOUT", httpx2.Timeout(0.2))
    delivery = plan(order)
    sandbox.fail("whatsapp", fault="slow", times=1)

    with pytest.raises(OutcomeUnknown, match="ReadTimeout"):
        deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.UNKNOWN


def test_a_run_that_finds_anothers_claim_does_not_send(sandbox: Sandbox, order: Order) -> None:
    delivery = plan(order)
    Delivery.objects.filter(pk=delivery.pk).update(
        state=DeliveryState.SENDING, claim="5e0b8b5e-6c43-4a35-9d1c-6a0a1f0e7d11"
    )

    with pytest.raises(OutcomeUnknown, match="earlier run"):
        deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.UNKNOWN
    assert not sandbox.messages


def test_a_run_given_up_too_early_still_records_its_answer(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = plan(order)
    really_send = whatsapp.send

    def send_while_another_run_looks(*args: Any, **kwargs: Any) -> base.Receipt:
        with pytest.raises(OutcomeUnknown):
            deliveries.send(delivery.pk)
        return really_send(*args, **kwargs)

    monkeypatch.setattr(whatsapp, "send", send_while_another_run_looks)
    deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.SENT
    assert len(sandbox.messages) == 1


def test_an_unforeseen_error_during_the_call_is_unknown(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*args: Any, **kwargs: Any) -> base.Receipt:
        raise KeyError("surprise")

    monkeypatch.setattr(whatsapp, "send", break_off)
    delivery = plan(order)

    with pytest.raises(OutcomeUnknown, match="surprise"):
        deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.error_code) == (DeliveryState.UNKNOWN, "KeyError")


def test_an_unreachable_provider_is_a_known_failure(
    sandbox: Sandbox, order: Order, settings: Settings
) -> None:
    settings.SMS_API_URL = "http://127.0.0.1:9"
    delivery = plan(order, Channel.SMS)

    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        deliveries.send(delivery.pk)

    delivery.refresh_from_db()
    assert (delivery.state, delivery.error_code) == (DeliveryState.FAILED, "unreachable")


def test_a_template_the_provider_does_not_know_is_permanent(
    sandbox: Sandbox, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifications.sandbox.providers.TEMPLATES", {})
    delivery = plan(order)

    with pytest.raises(MessageRejected, match="132001") as raised:
        deliveries.send(delivery.pk)

    assert isinstance(raised.value, PermanentError)


def test_a_delivery_that_is_gone_is_permanent() -> None:
    with pytest.raises(DeliveryMissing):
        deliveries.send(404)


@pytest.mark.django_db(transaction=True)
def test_no_provider_is_called_inside_a_transaction(sandbox: Sandbox, order: Order) -> None:
    delivery = plan(order)

    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        deliveries.send(delivery.pk)

    assert not sandbox.messages
