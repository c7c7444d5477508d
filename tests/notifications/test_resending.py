"""Staff send again what is unknown or was not delivered: once, on record, if they may."""

from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils import timezone

from notifications import receipts, resending
from notifications.announcing import announce
from notifications.models import Channel, Delivery, DeliveryState, Event, ReceiptStatus
from notifications.receipts import Word
from notifications.resending import Skip
from notifications.sandbox import Sandbox
from orders.models import Order, Retailer
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, Job
from queueadmin.states import DeadLetterStatus, JobState
from queueadmin.testing import run_jobs
from tests.business import plan

pytestmark = pytest.mark.django_db

LIST = "/admin/notifications/delivery/"


@pytest.fixture
def anna(db: None) -> User:
    return staff("view_delivery", "resend_delivery", "requeue_deadletter")


def staff(*codenames: str) -> User:
    user = User.objects.create_user(f"staff-{User.objects.count()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return User.objects.get(pk=user.pk)


@pytest.fixture
def quiet_order(sandbox: Sandbox, order: Order) -> Order:
    """An order whose own messages are out of the way."""
    run_jobs()
    Delivery.objects.all().delete()
    sandbox.reset()
    return order


def tell(order: Order, channel: Channel = Channel.WHATSAPP) -> Delivery:
    (delivery,) = announce(
        Event.ORDER_CONFIRMED,
        subject=order,
        recipient=order.retailer,
        channels=[channel],
        context={"name": "n", "order": "1", "total": "1", "vendor": "v", "lines": []},
    )
    return delivery


@pytest.fixture
def unknown(sandbox: Sandbox, quiet_order: Order) -> Delivery:
    """A message whose provider answered nothing; its job is a dead letter."""
    sandbox.fail("sms", fault="lost_answer", times=1)
    delivery = tell(quiet_order, Channel.SMS)
    run_jobs()
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.UNKNOWN
    assert DeadLetter.objects.pending().count() == 1
    sandbox.mailbox.clear()
    return delivery


def report(delivery: Delivery, status: ReceiptStatus, at: datetime | None = None) -> None:
    word = Word(
        provider="whatsapp",
        message_id=delivery.provider_message_id,
        reference=str(delivery.reference),
        status=status,
        at=at or timezone.now(),
        said="131026 undeliverable",
    )
    assert receipts.take(word)


@pytest.fixture
def failed(sandbox: Sandbox, quiet_order: Order) -> Delivery:
    """A message the provider took and reported as not delivered."""
    delivery = tell(quiet_order)
    run_jobs()
    report(delivery, ReceiptStatus.FAILED)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.receipt) == ("sent", "failed")
    sandbox.reset()
    return delivery


# --- What became of it is unknown ----------------------------------------------------------
def test_a_message_of_unknown_outcome_is_sent_by_its_own_delivery_and_its_letter_recovers(
    sandbox: Sandbox, unknown: Delivery, anna: User
) -> None:
    result = resending.resend([unknown.pk], by=anna, reason="not at the gateway")
    run_jobs()

    unknown.refresh_from_db()
    assert result.done == {unknown.pk}
    assert unknown.state == DeliveryState.SENT
    assert [message.reference for message in sandbox.messages] == [str(unknown.reference)]
    assert DeadLetter.objects.get().status == DeadLetterStatus.RECOVERED
    entry = AuditEntry.objects.get(target_type="delivery")
    assert (entry.user, entry.verb, entry.reason) == (anna, "resend", "not at the gateway")


def test_pressed_twice_an_unknown_message_is_sent_once(
    sandbox: Sandbox, unknown: Delivery, anna: User
) -> None:
    resending.resend([unknown.pk], by=anna, reason="once")
    again = resending.resend([unknown.pk], by=anna, reason="twice")
    run_jobs()
    late = resending.resend([unknown.pk], by=anna, reason="late")

    assert (again.done, late.done) == (set(), set())
    assert late.skipped == {Skip.NOT_FAILED: 1}
    assert len(sandbox.messages) == 1
    assert AuditEntry.objects.filter(target_type="delivery").count() == 1


def test_whoever_may_not_requeue_leaves_that_to_others(sandbox: Sandbox, unknown: Delivery) -> None:
    ben = staff("resend_delivery")

    result = resending.resend([unknown.pk], by=ben, reason="not at the gateway")
    run_jobs()

    unknown.refresh_from_db()
    assert result.held == {unknown.pk}
    assert unknown.state == DeliveryState.PENDING
    assert DeadLetter.objects.get().status == DeadLetterStatus.PENDING
    assert sandbox.messages == []


def test_an_unknown_message_whose_letter_was_closed_gets_a_job_of_its_own(
    sandbox: Sandbox, unknown: Delivery, anna: User
) -> None:
    DeadLetter.objects.update(status=DeadLetterStatus.PERMANENTLY_FAILED)

    resending.resend([unknown.pk], by=anna, reason="the shop asks for it")
    run_jobs()

    unknown.refresh_from_db()
    assert unknown.state == DeliveryState.SENT
    assert len(sandbox.messages) == 1


def test_a_receipt_that_comes_first_makes_resending_needless(
    sandbox: Sandbox, unknown: Delivery, anna: User
) -> None:
    report(unknown, ReceiptStatus.DELIVERED)

    result = resending.resend([unknown.pk], by=anna, reason="x")
    run_jobs()

    assert result.skipped == {Skip.NOT_FAILED: 1}
    assert sandbox.messages == []


# --- It was not delivered ------------------------------------------------------------------
def test_a_message_reported_as_not_delivered_is_sent_again_to_the_present_address(
    sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    Retailer.objects.update(phone="+447700900999")

    result = resending.resend([failed.pk], by=anna, reason="the number is corrected")
    run_jobs()

    second = Delivery.objects.get(resends=failed)
    (message,) = sandbox.messages
    assert result.done == {failed.pk}
    assert (second.state, second.address) == (DeliveryState.SENT, "+447700900999")
    assert (message.recipient, message.reference) == ("+447700900999", str(second.reference))
    assert second.reference != failed.reference
    failed.refresh_from_db()
    assert (failed.state, failed.receipt) == ("sent", "failed")


def test_pressed_twice_a_failed_message_is_sent_once(
    sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    resending.resend([failed.pk], by=anna, reason="once")
    again = resending.resend([failed.pk], by=anna, reason="twice")
    run_jobs()

    assert again.skipped == {Skip.RESENT: 1}
    assert len(sandbox.messages) == 1


def test_a_resent_message_that_fails_again_can_be_resent_again(
    sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    resending.resend([failed.pk], by=anna, reason="once")
    run_jobs()
    second = Delivery.objects.get(resends=failed)
    report(second, ReceiptStatus.FAILED)

    resending.resend([second.pk], by=anna, reason="twice")
    run_jobs()

    assert Delivery.objects.get(resends=second).state == DeliveryState.SENT


def test_late_receipts_of_the_first_message_say_nothing_about_the_second(
    sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    resending.resend([failed.pk], by=anna, reason="once")
    report(failed, ReceiptStatus.READ, at=datetime(2030, 1, 1, tzinfo=UTC))
    run_jobs()

    second = Delivery.objects.get(resends=failed)
    assert (second.state, second.receipt) == (DeliveryState.SENT, "")


def test_a_late_receipt_of_its_arrival_makes_resending_needless(
    sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    report(failed, ReceiptStatus.DELIVERED)

    result = resending.resend([failed.pk], by=anna, reason="x")

    assert result.skipped == {Skip.NOT_FAILED: 1}


@pytest.mark.parametrize("state", [state for state in DeliveryState if state != "unknown"])
def test_nothing_else_is_resent(order: Order, anna: User, state: DeliveryState) -> None:
    delivery = plan(order)
    Delivery.objects.update(state=state)

    result = resending.resend([delivery.pk, 404], by=anna, reason="x")

    assert result.skipped == {Skip.NOT_FAILED: 2}
    assert not Job.objects.filter(actor="send_whatsapp", state=JobState.WAITING).exists()


def test_one_act_is_bounded(order: Order, anna: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "LIMIT", 1)

    assert resending.resend([1, 2, 3], by=anna, reason="x").skipped[Skip.OVER_LIMIT] == 2


def test_a_reason_and_the_permission_are_required(unknown: Delivery, anna: User) -> None:
    with pytest.raises(ValueError, match="reason"):
        resending.resend([unknown.pk], by=anna, reason=" ")
    with pytest.raises(NotPermitted):
        resending.resend([unknown.pk], by=staff("view_delivery"), reason="x")

    unknown.refresh_from_db()
    assert unknown.state == DeliveryState.UNKNOWN


@pytest.mark.django_db(transaction=True)
def test_two_people_who_press_at_once_send_one_message(
    sandbox: Sandbox, order: Order, anna: User
) -> None:
    delivery = plan(order)
    Delivery.objects.update(state=DeliveryState.SENT, receipt="failed", receipt_rank=2)
    results: list[resending.Resent] = []

    def press() -> None:
        try:
            results.append(resending.resend([delivery.pk], by=anna, reason="x"))
        finally:
            connection.close()

    people = [Thread(target=press) for _person in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()

    assert sorted(len(result.done) for result in results) == [0, 0, 0, 1]
    assert Delivery.objects.filter(resends=delivery).count() == 1


# --- In the admin --------------------------------------------------------------------------
def press(client: Client, *deliveries: Delivery, **more: str) -> Any:
    chosen = [delivery.pk for delivery in deliveries]
    return client.post(LIST, {"action": "resend", "_selected_action": chosen, **more}, follow=True)


def test_the_admin_asks_first_says_what_it_means_and_tells_what_was_done(
    client: Client, sandbox: Sandbox, unknown: Delivery, anna: User
) -> None:
    order = Order.objects.get()
    lost, fine = plan(order, Channel.EMAIL), plan(order, Channel.WHATSAPP)
    Delivery.objects.filter(pk=lost.pk).update(state="sent", receipt="failed", receipt_rank=2)
    client.force_login(anna)

    asked = press(client, unknown, lost, fine).content.decode()
    unexplained = press(client, unknown, confirm="1", reason=" ").content.decode()
    assert AuditEntry.objects.count() == 0
    done = press(client, unknown, lost, fine, confirm="1", reason="not there").content.decode()
    run_jobs()

    assert "may have delivered" in asked
    assert "did not arrive" in asked
    assert "1 other delivery is left alone" in asked
    assert 'name="reason"' in unexplained
    assert "2 deliveries are sent again. 1 left alone" in done
    assert len(sandbox.messages) == 2
    assert set(AuditEntry.objects.filter(verb="resend").values_list("reason", flat=True)) == {
        "not there"
    }


def test_without_the_permission_the_admin_refuses(
    client: Client, unknown: Delivery, failed: Delivery
) -> None:
    client.force_login(staff("view_delivery"))

    press(client, unknown, failed, confirm="1", reason="x")
    page = client.get(f"{LIST}{unknown.pk}/change/").content.decode()

    unknown.refresh_from_db()
    assert unknown.state == DeliveryState.UNKNOWN
    assert not Delivery.objects.filter(resends=failed).exists()
    assert "Resend…" not in page


def test_the_page_of_a_delivery_offers_it_and_links_what_was_sent_again(
    client: Client, sandbox: Sandbox, failed: Delivery, anna: User
) -> None:
    client.force_login(anna)
    before = client.get(f"{LIST}{failed.pk}/change/").content.decode()

    press(client, failed, confirm="1", reason="x")
    second = Delivery.objects.get(resends=failed)
    after = client.get(f"{LIST}{failed.pk}/change/").content.decode()
    back = client.get(f"{LIST}{second.pk}/change/").content.decode()

    assert "Resend…" in before
    assert "Resend…" not in after
    assert f"{LIST}{second.pk}/change/" in after
    assert f"{LIST}{failed.pk}/change/" in back
