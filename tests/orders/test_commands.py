"""The demo's business has a past that fits together, and can be kept busy."""

import logging
import re
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from notifications.models import Delivery, DeliveryState
from notifications.sandbox import Sandbox
from orders import credit, figures
from orders.models import CreditAccount, Invoice, Order, OrderEvent, Retailer
from orders.simulation import Simulation
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db


def test_a_seeded_past_makes_sense(sandbox: Sandbox) -> None:
    call_command("seed", orders=600)

    past = Order.objects.filter(expires_at__lt=timezone.now())
    assert past.count() == 600
    assert Retailer.objects.count() > 100
    ids = CreditAccount.objects.values_list("pk", flat=True)
    assert credit.reconcile(ids) == []
    assert past.filter(payment="credit", invoice__isnull=True).count() == 0
    for order in past[:50]:
        assert order.history.last().state == order.state  # type: ignore[union-attr]
        assert order.total == sum((line.total for line in order.lines.all()), Decimal())
    assert OrderEvent.objects.filter(order=past.first()).count() >= 2
    day = past.filter(state="delivered").earliest("placed_at").placed_at.date()
    counted = figures.of_day(day)
    assert counted.sent >= counted.steps["placed"] > 0


@pytest.mark.parametrize("number", ["-5", "many", "99999999999"])
def test_a_past_of_no_sensible_size_is_refused(number: str) -> None:
    with pytest.raises(CommandError, match="no number from 0"):
        call_command("seed", "--orders", number)


def test_a_simulated_business_orders_answers_and_delivers(sandbox: Sandbox) -> None:
    call_command("seed")
    simulation = Simulation(0.5, sandbox.url)
    simulation.chance.seed(1)

    for _second in range(4):
        simulation.step(5)
        run_jobs()

    assert simulation.did["placed"] > 10
    assert simulation.did["confirmed"] > 5
    assert simulation.did["delivered"] > 0
    assert simulation.did["faults"] > 0


def test_nothing_fails_that_was_not_asked_for(sandbox: Sandbox) -> None:
    call_command("seed")
    simulation = Simulation(0, sandbox.url)
    for _second in range(3):
        simulation.step(5)
        run_jobs()

    assert simulation.did["delivered"] > 0
    # Its number is always refused; it orders nothing beyond what the demo begins with.
    failed = Delivery.objects.filter(state=DeliveryState.FAILED)
    assert set(failed.values_list("recipient_name", flat=True)) == {"Station Kiosk"}
    assert Order.objects.filter(retailer__name="Station Kiosk").count() == 1


def test_simulated_shops_pay_so_that_their_credit_lasts(sandbox: Sandbox) -> None:
    call_command("seed")
    simulation = Simulation(0, sandbox.url)
    simulation.chance.seed(1)
    for _second in range(4):
        simulation.step(5)
        run_jobs()
    owed = CreditAccount.objects.filter(balance__gt=0)
    assert owed.exists()

    for _second in range(100):
        simulation.pay()

    assert Invoice.objects.exists()
    assert not Invoice.objects.open().exists()
    assert credit.reconcile(CreditAccount.objects.values_list("pk", flat=True)) == []


def test_without_a_sandbox_it_says_what_to_do_and_orders_nothing(settings: Settings) -> None:
    call_command("seed")
    before = Order.objects.count()
    settings.SANDBOX_URL = "http://127.0.0.1:9"

    with pytest.raises(CommandError, match="make run"):
        call_command("simulate", seconds=1, rate=5, failures=1)

    assert Order.objects.count() == before


def test_a_simulation_shows_one_line_a_second_and_no_log(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("seed")
    # An order on credit that is used up is refused, and which ones come is chance.
    CreditAccount.objects.all().delete()
    caplog.clear()
    capsys.readouterr()
    with caplog.at_level("INFO"):
        call_command("simulate", seconds=0.9, rate=3)

    assert re.fullmatch(r"[^\n]*3 placed[^\n]*\n", capsys.readouterr().out)
    assert not caplog.records
    assert not logging.root.manager.disable


def test_nobody_simulates_with_credentials_of_real_providers(settings: Settings) -> None:
    settings.SENDGRID_API_KEY = "real"

    with pytest.raises(CommandError, match="write to people"):
        call_command("simulate", seconds=1)


@pytest.mark.parametrize("options", [{"failures": 2.0}, {"rate": 0.0}, {"rate": 1000.0}])
def test_odd_numbers_are_explained(sandbox: Sandbox, options: dict[str, float]) -> None:
    with pytest.raises(CommandError, match="--failures"):
        call_command("simulate", **options)


def test_without_a_business_it_says_what_to_do(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match="seed"):
        call_command("simulate")
