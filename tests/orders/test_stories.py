"""Failures from the shop's order to the dead letter and back, through the ledger."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.test import Client

from notifications.models import Delivery, DeliveryState
from notifications.sandbox import Sandbox
from orders.models import Order, Product, Retailer, Vendor
from orders.workflow import Item, place_order
from queueadmin import deadletters
from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeadLetterStatus, DeathCause, JobState
from queueadmin.testing import run_jobs
from tests.business import PHONE, VENDOR_PHONE

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def whatsapp_job(order: Order) -> Job:
    """Return the job of the first message to the shop."""
    message = Delivery.objects.about(order).to(order.retailer).get(channel="whatsapp")
    jobs = Job.objects.about(order).filter(actor="send_whatsapp")
    return next(job for job in jobs if (job.payload or {})["args"][0] == message.pk)


def test_a_number_that_whatsapp_refuses_is_mended_by_staff_and_the_message_arrives(
    sandbox: Sandbox, retailer: Retailer, tea: Product, vendor: Vendor, client: Client
) -> None:
    Retailer.objects.update(phone="+447700900000")
    order = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
    run_jobs()
    letter = DeadLetter.objects.get(job=whatsapp_job(order))
    assert (letter.died_by, letter.attempts) == (DeathCause.REJECTED, 1)
    assert "131026" in letter.error_message
    assert "not a WhatsApp number" in letter.error_message

    anna = User.objects.create_superuser("anna")
    client.force_login(anna)
    page = f"/admin/orders/retailer/{retailer.pk}/change/"
    form = {"name": retailer.name, "user": retailer.user_id, "email": retailer.email}
    wanted = {"wants_whatsapp": "on", "wants_email": "on", "wants_sms": "on", "language": "en"}
    answer = client.post(page, {**form, **wanted, "phone": "+447700900123"})
    assert answer.status_code == 302
    deadletters.requeue([letter.pk], by=anna, reason="number corrected")
    run_jobs()

    letter.refresh_from_db()
    sent = [message for message in sandbox.messages if message.channel == "whatsapp"]
    assert "+447700900123" in [message.recipient for message in sent]
    assert (letter.status, letter.requeued_by) == (DeadLetterStatus.RECOVERED, anna)
    assert letter.recovered_at is not None


def test_an_outage_of_whatsapp_is_retried_by_its_policy_and_ends_as_a_dead_letter(
    sandbox: Sandbox, retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    sandbox.fail("whatsapp", PHONE)
    due = []
    with time_machine.travel(NOON, tick=False) as clock:
        order = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
        run_jobs()
        while (job := whatsapp_job(order)).state == JobState.RETRYING:
            due.append((job.due_at - NOON).total_seconds())
            clock.move_to(job.due_at - timedelta(milliseconds=1))
            run_jobs()
            assert whatsapp_job(order).attempts == job.attempts
            clock.move_to(job.due_at)
            run_jobs()

    letter = DeadLetter.objects.get()
    assert due == [5, 15, 35, 75]
    assert (letter.job_id, letter.died_by) == (job.pk, DeathCause.ATTEMPTS_EXHAUSTED)
    to_shop = {message.channel for message in sandbox.messages if message.recipient != VENDOR_PHONE}
    assert to_shop == {"email", "sms"}


def test_throttling_is_retried_exactly_when_the_provider_asks(
    sandbox: Sandbox, retailer: Retailer, tea: Product, vendor: Vendor
) -> None:
    Retailer.objects.update(wants_email=False, wants_sms=False)
    retailer.refresh_from_db()
    sandbox.fail("whatsapp", PHONE, fault="throttled", times=1)
    with time_machine.travel(NOON, tick=False) as clock:
        order = place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
        run_jobs()
        job = whatsapp_job(order)
        assert (job.state, job.due_at) == (JobState.RETRYING, NOON + timedelta(seconds=2))
        clock.move_to(job.due_at)
        run_jobs()

    assert whatsapp_job(order).state == JobState.COMPLETED


def test_a_message_of_unknown_outcome_is_a_dead_letter_and_not_sent_again_by_a_requeue(
    sandbox: Sandbox, order: Order
) -> None:
    sandbox.fail("whatsapp", PHONE, fault="lost_answer", times=1)
    run_jobs()
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.REJECTED

    deadletters.requeue([letter.pk], by=User.objects.create_superuser("anna"))
    run_jobs()

    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING
    lost = Delivery.objects.to(order.retailer).get(channel="whatsapp")
    assert lost.state == DeliveryState.UNKNOWN
    assert [message.recipient for message in sandbox.messages].count(PHONE) == 2


def test_an_order_that_is_rolled_back_leaves_no_job(retailer: Retailer, tea: Product) -> None:
    @transaction.atomic
    def place_and_fail() -> None:
        place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        place_and_fail()

    assert not Job.objects.exists()
    assert not Order.objects.exists()


def test_every_job_of_an_order_is_found_under_it(sandbox: Sandbox, order: Order) -> None:
    run_jobs()

    actors = set(Job.objects.about(order).values_list("actor", flat=True))

    assert actors == {
        "route_order",
        "order_status_update",
        "fall_back",
        "expire_order",
        "send_whatsapp",
        "send_email",
        "send_sms",
    }


def test_seeding_twice_makes_one_demo_with_one_dead_letter(sandbox: Sandbox) -> None:
    call_command("seed")
    call_command("seed")
    run_jobs()

    assert (Retailer.objects.count(), Order.objects.count()) == (3, 4)
    assert {letter.error_class.rpartition(".")[2] for letter in DeadLetter.objects.all()} == {
        "RecipientRejected"
    }
    viewer = User.objects.get(username="viewer")
    assert viewer.has_perm("queueadmin.view_deadletter")
    assert not viewer.has_perm("queueadmin.requeue_deadletter")
    assert User.objects.get(username="anna").has_perm("queueadmin.requeue_deadletter")
