"""Delivery slots are never overfull, and their reminders follow the booking."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from notifications.models import Delivery
from notifications.sandbox import Sandbox
from orders import bookings, workflow
from orders.exceptions import NotAllowedNow, SlotFull
from orders.models import BookingReminder, DeliverySlot, Order, ReminderState
from queueadmin.testing import run_jobs
from tests.business import confirm

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock() -> object:
    with time_machine.travel(NOON, tick=False) as clock:
        yield clock


def slot(hours: float, capacity: int = 10) -> DeliverySlot:
    start = NOON + timedelta(hours=hours)
    return DeliverySlot.objects.create(
        starts_at=start, ends_at=start + timedelta(hours=2), capacity=capacity
    )


def states(order: Order) -> list[tuple[int, str, str]]:
    rows = BookingReminder.objects.filter(booking__order=order).order_by("version", "due_at")
    return list(rows.values_list("version", "kind", "state"))


def reminded(order: Order) -> int:
    return Delivery.objects.about(order).filter(event="booking_reminder", channel="sms").count()


def test_a_booked_order_is_reminded_three_times_at_the_right_moments(
    sandbox: Sandbox, order: Order, clock: Any
) -> None:
    confirm(order)
    bookings.book(order, slot(48))
    counts = []

    for hours in (23.9, 24, 46.9, 47, 47.7, 47.75, 49):
        clock.move_to(NOON + timedelta(hours=hours))
        run_jobs()
        counts.append(reminded(order))

    assert counts == [0, 1, 1, 2, 2, 3, 3]


def test_reminders_already_past_are_shown_as_skipped(order: Order) -> None:
    bookings.book(order, slot(0.5))

    assert states(order) == [(1, "24h", "skipped"), (1, "1h", "skipped"), (1, "15min", "planned")]


def test_a_moved_booking_moves_its_reminders(sandbox: Sandbox, order: Order, clock: Any) -> None:
    confirm(order)
    first, second = slot(48), slot(72)
    bookings.book(order, first)
    clock.move_to(NOON + timedelta(hours=24))
    run_jobs()

    bookings.book(order, second)
    clock.move_to(NOON + timedelta(hours=47.8))
    run_jobs()
    assert reminded(order) == 1
    clock.move_to(NOON + timedelta(hours=48))
    run_jobs()

    assert reminded(order) == 2
    assert states(order)[:3] == [(1, "24h", "sent"), (1, "1h", "void"), (1, "15min", "void")]
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.booked, second.booked) == (0, 1)


def test_a_cancelled_booking_sends_nothing_and_frees_its_slot(
    sandbox: Sandbox, order: Order, clock: Any
) -> None:
    confirm(order)
    chosen = slot(48)
    bookings.book(order, chosen)

    assert [bookings.cancel(order), bookings.cancel(order)] == [True, False]
    clock.move_to(NOON + timedelta(hours=48))
    run_jobs()

    chosen.refresh_from_db()
    assert (chosen.booked, reminded(order)) == (0, 0)


def test_the_end_of_an_order_ends_its_booking(order: Order) -> None:
    chosen = slot(48)
    bookings.book(order, chosen)

    workflow.cancel(order, by=order.retailer.user)

    chosen.refresh_from_db()
    assert chosen.booked == 0
    assert {state for _version, _kind, state in states(order)} == {"void"}


def test_an_order_that_has_arrived_is_not_reminded_any_more(order: Order) -> None:
    confirm(order)
    bookings.book(order, slot(48))
    workflow.dispatch(order, by=None)
    workflow.deliver(order, by=None)

    assert {state for _version, _kind, state in states(order)} == {"void"}


def test_booking_the_same_slot_again_changes_nothing(order: Order) -> None:
    chosen = slot(48)

    first, second = bookings.book(order, chosen), bookings.book(order, chosen)

    chosen.refresh_from_db()
    assert (first.version, second.version, chosen.booked) == (1, 1, 1)


def test_a_cancelled_booking_can_be_made_again(order: Order) -> None:
    chosen = slot(48)
    bookings.book(order, chosen)
    bookings.cancel(order)

    bookings.book(order, chosen)

    chosen.refresh_from_db()
    assert chosen.booked == 1
    assert states(order)[-1] == (2, "15min", "planned")


@pytest.mark.parametrize(("hours", "capacity"), [(48, 0), (-1, 10)])
def test_a_slot_that_is_full_or_has_begun_is_refused_and_the_old_one_stays(
    order: Order, hours: int, capacity: int
) -> None:
    old = slot(24)
    bookings.book(order, old)
    wanted = slot(hours, capacity=1)
    if not capacity:
        DeliverySlot.objects.filter(pk=wanted.pk).update(booked=1)

    with pytest.raises(SlotFull):
        bookings.book(order, wanted)

    old.refresh_from_db()
    assert old.booked == 1
    assert order.booking.slot == old


def test_an_order_on_its_way_cannot_change_its_slot(order: Order) -> None:
    confirm(order)
    workflow.dispatch(order, by=None)

    with pytest.raises(NotAllowedNow):
        bookings.book(order, slot(48))


def test_a_reminder_that_runs_much_too_late_is_skipped(
    sandbox: Sandbox, order: Order, clock: Any
) -> None:
    confirm(order)
    bookings.book(order, slot(2))

    clock.move_to(NOON + timedelta(hours=1.5))
    run_jobs()

    assert reminded(order) == 0
    assert (1, "1h", ReminderState.SKIPPED) in states(order)
