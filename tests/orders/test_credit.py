"""What shops owe: balances that are the sum of their entries, limits, payments, reminders."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.contrib.auth.models import User
from django.utils import timezone

from notifications import incoming
from notifications.models import Delivery, Incoming
from notifications.sandbox import Sandbox
from orders import credit, scoring, workflow
from orders.actors import (
    payment_reminder,
    reconcile_credit,
    sweep_payment_reminders,
)
from orders.exceptions import CreditRefused, InvalidPayment, NotAllowedNow
from orders.models import (
    CreditAccount,
    CreditDrift,
    CreditEntry,
    Invoice,
    Order,
    Payment,
    Product,
    Retailer,
    Subscriber,
    Vendor,
)
from orders.scoring import Conduct
from orders.workflow import Item, place_order
from queueadmin.models import AuditEntry, Job
from queueadmin.testing import run_jobs
from tests.business import confirm

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def account(retailer: Retailer) -> CreditAccount:
    return CreditAccount.objects.create(retailer=retailer, limit=Decimal("100.00"))


@pytest.fixture
def anna(db: None) -> User:
    return User.objects.create_user("anna")


def on_credit(retailer: Retailer, tea: Product, quantity: int = 1) -> Order:
    return place_order(
        retailer=retailer, lines=[Item(tea.pk, quantity)], by=None, payment=Payment.CREDIT
    )


def delivered(order: Order) -> Invoice:
    confirm(order)
    workflow.dispatch(order, by=None)
    workflow.deliver(order, by=None)
    return Invoice.objects.get(order=order)


def balance(account: CreditAccount) -> Decimal:
    ((_pk, balance, entries),) = CreditAccount.objects.filter(pk=account.pk).sums()
    assert balance == entries
    return balance


def test_an_order_on_credit_is_charged_and_its_end_reverses_it(
    account: CreditAccount, tea: Product, vendor: Vendor, anna: User
) -> None:
    order = on_credit(account.retailer, tea, 2)
    assert balance(account) == Decimal("83.00")

    workflow.cancel(order, by=anna)

    assert balance(account) == Decimal(0)
    assert [entry.kind for entry in order.credit_entries.order_by("pk")] == ["charge", "reversal"]


def test_an_order_above_the_limit_is_refused_and_leaves_nothing(
    account: CreditAccount, tea: Product
) -> None:
    with pytest.raises(CreditRefused, match=r"100\.00 EUR are left"):
        on_credit(account.retailer, tea, 3)

    assert not Order.objects.exists()
    assert not CreditEntry.objects.exists()
    assert not Job.objects.exists()


def test_the_limit_is_reached_to_the_cent(
    account: CreditAccount, salt: Product, retailer: Retailer
) -> None:
    CreditAccount.objects.update(limit=Decimal("0.70"))

    for _order in range(7):
        on_credit(retailer, salt)
    with pytest.raises(CreditRefused):
        on_credit(retailer, salt)

    assert balance(account) == Decimal("0.70")
    assert credit.reconcile([account.pk]) == []


def test_a_shop_without_an_account_pays_on_delivery(retailer: Retailer, tea: Product) -> None:
    with pytest.raises(CreditRefused, match="no credit account"):
        on_credit(retailer, tea)


def test_credit_is_for_its_own_currency(account: CreditAccount, tea: Product) -> None:
    CreditAccount.objects.update(currency="GBP")

    with pytest.raises(CreditRefused, match="GBP"):
        on_credit(account.retailer, tea)


def test_an_order_paid_on_delivery_touches_no_credit(
    account: CreditAccount, order: Order, anna: User
) -> None:
    workflow.cancel(order, by=anna)

    assert balance(account) == Decimal(0)
    assert not CreditEntry.objects.exists()


def test_a_payment_settles_the_oldest_invoice_first_and_is_audited(
    account: CreditAccount, tea: Product, vendor: Vendor, anna: User
) -> None:
    first, second = (delivered(on_credit(account.retailer, tea)) for _order in range(2))

    credit.record_payment(account, Decimal("50.00"), by=anna, note="bank 12")

    first.refresh_from_db()
    second.refresh_from_db()
    assert first.settled_at is not None
    assert (second.paid, second.settled_at) == (Decimal("8.50"), None)
    assert balance(account) == Decimal("33.00")
    assert AuditEntry.objects.get(verb="record payment").reason == "bank 12"


def test_money_paid_in_advance_settles_the_next_invoice(
    account: CreditAccount, tea: Product, vendor: Vendor, anna: User
) -> None:
    credit.record_payment(account, Decimal("41.50"), by=anna)

    invoice = delivered(on_credit(account.retailer, tea))

    assert invoice.settled_at is not None
    assert balance(account) == Decimal(0)


def test_the_same_payment_form_twice_is_one_payment(account: CreditAccount, anna: User) -> None:
    token = "5e0b8b5e-6c43-4a35-9d1c-6a0a1f0e7d11"

    for _click in range(2):
        credit.record_payment(account, Decimal("5.00"), by=anna, token=token)

    assert balance(account) == Decimal("-5.00")
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "NaN", "Infinity"])
def test_what_is_no_sum_of_money_is_refused(
    account: CreditAccount, anna: User, amount: str
) -> None:
    with pytest.raises(InvalidPayment):
        credit.record_payment(account, Decimal(amount), by=anna)

    assert balance(account) == Decimal(0)


def test_a_drift_is_found_reported_once_and_not_repaired(
    sandbox: Sandbox, account: CreditAccount, caplog: pytest.LogCaptureFixture
) -> None:
    Subscriber.objects.create(name="Carla", email="carla@example.com")
    CreditAccount.objects.update(balance=Decimal("7.00"))

    for _hour in range(2):
        reconcile_credit.send()
        run_jobs()

    drift = CreditDrift.objects.get()
    assert (drift.difference, drift.gone_at) == (Decimal("7.00"), None)
    account.refresh_from_db()
    assert account.balance == Decimal("7.00")
    (mail,) = sandbox.messages
    assert (mail.recipient, "7.00 EUR" in mail.text) == ("carla@example.com", True)
    assert "has drifted" in caplog.text


def test_a_drift_that_staff_set_right_is_gone_and_says_who_did_it_and_why(
    account: CreditAccount, anna: User
) -> None:
    CreditAccount.objects.update(balance=Decimal("7.00"))
    credit.reconcile([account.pk])

    credit.set_right(account, difference=Decimal("7.00"), by=anna, reason="typed in the database")

    assert balance(account) == Decimal("0.00")
    assert CreditDrift.objects.get().gone_at is not None
    assert credit.reconcile([account.pk]) == []
    entry = AuditEntry.objects.get()
    assert (entry.user_name, entry.reason) == ("anna", "typed in the database")
    assert entry.detail == {"before": "7.00", "after": "0.00"}


@pytest.mark.parametrize("seen", ["6.00", "0.00", "-7.00"])
def test_a_drift_that_changed_since_it_was_seen_is_left_alone(
    account: CreditAccount, anna: User, seen: str
) -> None:
    CreditAccount.objects.update(balance=Decimal("7.00"))

    with pytest.raises(NotAllowedNow, match=r"7\.00"):
        credit.set_right(account, difference=Decimal(seen), by=anna, reason="typed")

    account.refresh_from_db()
    assert account.balance == Decimal("7.00")
    assert not AuditEntry.objects.exists()


def test_a_balance_without_drift_cannot_be_set_right(account: CreditAccount, anna: User) -> None:
    with pytest.raises(NotAllowedNow):
        credit.set_right(account, difference=Decimal(0), by=anna, reason="to be sure")


def test_a_correction_needs_a_reason_and_keeps_the_sum(account: CreditAccount, anna: User) -> None:
    with pytest.raises(InvalidPayment, match="why"):
        credit.correct(account, Decimal("1.00"), by=anna, reason=" ")

    credit.correct(account, Decimal("1.00"), by=anna, reason="goodwill")

    assert balance(account) == Decimal("1.00")
    assert credit.reconcile([account.pk]) == []


@pytest.mark.parametrize(
    ("days_late", "expected"),
    [([], 600), ([0], 700), ([5], 625), ([30], 550), ([31], 450), ([-3, 0, 8], 700)],
)
def test_the_score_follows_the_documented_formula(days_late: list[int], expected: int) -> None:
    invoices = [Conduct(NOON, NOON + timedelta(days=days)) for days in days_late]

    assert scoring.score(invoices, NOON + timedelta(days=100)) == expected


def test_an_unpaid_invoice_counts_from_the_day_it_is_due() -> None:
    unpaid = [Conduct(NOON, None)]

    scores = [scoring.score(unpaid, NOON + timedelta(days=days)) for days in (-1, 1, 10, 40)]

    assert scores == [600, 625, 550, 450]


def test_a_payment_has_the_score_computed_anew(
    sandbox: Sandbox, account: CreditAccount, tea: Product, vendor: Vendor, anna: User
) -> None:
    delivered(on_credit(account.retailer, tea))
    credit.record_payment(account, Decimal("41.50"), by=anna)

    run_jobs()

    account.refresh_from_db()
    assert account.score == 700


def test_an_open_invoice_is_brought_to_mind_before_and_after_its_day(
    sandbox: Sandbox, account: CreditAccount, tea: Product, vendor: Vendor
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        delivered(on_credit(account.retailer, tea))
        days = []
        for day in range(1, 45):
            clock.move_to(NOON + timedelta(days=day))
            before = Delivery.objects.filter(event__startswith="payment").count()
            run_jobs()
            if Delivery.objects.filter(event__startswith="payment").count() > before:
                days.append(day)

    assert days == [27, 30, 33, 40]
    events = Delivery.objects.filter(channel="sms", event__startswith="payment").order_by("pk")
    assert [delivery.event for delivery in events] == [
        "payment_due",
        "payment_due",
        "payment_overdue",
        "payment_overdue",
    ]


def test_a_paid_invoice_is_not_brought_to_mind(
    sandbox: Sandbox, account: CreditAccount, tea: Product, vendor: Vendor, anna: User
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        delivered(on_credit(account.retailer, tea))
        credit.record_payment(account, Decimal("41.50"), by=anna)
        clock.move_to(NOON + timedelta(days=40))
        run_jobs()

    assert not Delivery.objects.filter(event__startswith="payment").exists()


def test_the_sweep_makes_up_for_a_reminder_that_was_lost_and_doubles_none(
    sandbox: Sandbox, account: CreditAccount, tea: Product, vendor: Vendor
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        invoice = delivered(on_credit(account.retailer, tea))
        Job.objects.filter(actor="payment_reminder").delete()
        clock.move_to(NOON + timedelta(days=27, hours=3))
        for _morning in range(2):
            sweep_payment_reminders.send()
            run_jobs()
        payment_reminder.send(invoice.pk, "3 days before")
        run_jobs()

    assert Delivery.objects.filter(event="payment_due").count() == 3


def test_a_shop_that_asks_for_its_balance_is_answered_once(
    sandbox: Sandbox, account: CreditAccount, tea: Product, vendor: Vendor
) -> None:
    on_credit(account.retailer, tea)
    sandbox.mailbox.hear(account.retailer.phone)
    facts = {"message_id": "wamid.1", "sender": account.retailer.phone, "text": " Balance? "}

    for _call in range(2):
        incoming.take(**facts, at=timezone.now())
    run_jobs()

    answers = [sent.text for sent in sandbox.messages if "you owe" in sent.text]
    assert len(answers) == 1
    assert "41.50 EUR" in answers[0]
    assert "58.50 EUR" in answers[0]


def test_a_stranger_who_asks_for_a_balance_is_told_nothing(
    sandbox: Sandbox, account: CreditAccount
) -> None:
    incoming.take(message_id="wamid.1", sender="+447700900999", text="balance", at=timezone.now())

    run_jobs()

    assert not sandbox.messages
    assert Incoming.objects.count() == 1
