"""What can wait is not sent in the recipient's quiet hours, whenever its turn comes."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from notifications import delivery as deliveries
from notifications.announcing import announce
from notifications.models import Channel, Delivery, DeliveryState, Event
from notifications.preferences import end_of_quiet
from notifications.sandbox import Sandbox
from orders.models import Order, Retailer
from queueadmin.models import Job
from queueadmin.states import JobState
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db

LONDON = ZoneInfo("Europe/London")
KOLKATA = ZoneInfo("Asia/Kolkata")
NIGHT = (time(22), time(7))


@pytest.fixture
def sleeper(sandbox: Sandbox, order: Order) -> Order:
    """An order of a shop that sleeps from 22:00 to 07:00; its first messages are out."""
    run_jobs()
    Retailer.objects.update(quiet_from=NIGHT[0], quiet_until=NIGHT[1])
    order.retailer.refresh_from_db()
    sandbox.reset()
    return order


@pytest.fixture
def clock() -> Any:
    with time_machine.travel(datetime(2026, 3, 2, 12, tzinfo=UTC), tick=False) as clock:
        yield clock


def tell(
    order: Order, event: Event = Event.ORDER_CONFIRMED, channel: Channel = Channel.WHATSAPP
) -> Delivery:
    (delivery,) = announce(
        event,
        subject=order,
        recipient=order.retailer,
        channels=[channel],
        context={"name": "n", "order": "1", "total": "1", "vendor": "v"},
    )
    return delivery


def at(clock: Any, text: str, zone: Any = UTC) -> None:
    """Move the clock to a local time and run what is due."""
    clock.move_to(datetime.fromisoformat(text).replace(tzinfo=zone))
    run_jobs()


def state(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.state


def test_news_of_the_night_waits_for_the_morning_and_urgent_news_does_not(
    sleeper: Order, clock: Any
) -> None:
    at(clock, "2026-03-02 23:00")
    can_wait, urgent = tell(sleeper), tell(sleeper, Event.ORDER_OUT_FOR_DELIVERY)

    at(clock, "2026-03-03 06:59:59")
    assert (state(can_wait), state(urgent)) == (DeliveryState.PENDING, DeliveryState.SENT)
    at(clock, "2026-03-03 07:00:00")

    assert state(can_wait) == DeliveryState.SENT


@pytest.mark.parametrize("channel", list(Channel))
def test_a_message_that_is_tried_again_in_quiet_hours_waits_for_their_end(
    sandbox: Sandbox, sleeper: Order, clock: Any, channel: Channel
) -> None:
    for provider in {channel.value, "smtp" if channel == Channel.EMAIL else channel.value}:
        sandbox.fail(provider, fault="outage", times=1)
    at(clock, "2026-03-02 21:59:59")
    delivery = tell(sleeper, channel=channel)
    run_jobs()
    assert state(delivery) == DeliveryState.FAILED

    for text in ("2026-03-02 22:00:30", "2026-03-03 03:00", "2026-03-03 06:59:59"):
        at(clock, text)
        assert state(delivery) == DeliveryState.FAILED
        assert sandbox.messages == []
    at(clock, "2026-03-03 07:00")

    assert state(delivery) == DeliveryState.SENT
    assert len(sandbox.messages) == 1


def test_a_message_whose_queue_was_behind_waits_too(sleeper: Order, clock: Any) -> None:
    clock.move_to(datetime(2026, 3, 2, 21, 59, tzinfo=UTC))
    delivery = tell(sleeper)

    at(clock, "2026-03-02 22:00")
    assert state(delivery) == DeliveryState.PENDING
    at(clock, "2026-03-03 07:00")

    assert state(delivery) == DeliveryState.SENT


def test_a_message_sent_before_quiet_hours_begin_is_sent(sleeper: Order, clock: Any) -> None:
    clock.move_to(datetime(2026, 3, 2, 21, 59, tzinfo=UTC))
    delivery = tell(sleeper)

    at(clock, "2026-03-02 21:59:59")

    assert state(delivery) == DeliveryState.SENT


def test_waiting_costs_no_attempt(sleeper: Order, clock: Any) -> None:
    clock.move_to(datetime(2026, 3, 2, 21, 59, tzinfo=UTC))
    delivery = tell(sleeper)
    at(clock, "2026-03-02 22:00")
    at(clock, "2026-03-03 07:00")

    assert state(delivery) == DeliveryState.SENT
    jobs = Job.objects.filter(actor="send_whatsapp", subject=delivery.subject)
    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert {job.attempts for job in jobs} == {1}


def test_hours_that_became_longer_meanwhile_are_kept(sleeper: Order, clock: Any) -> None:
    at(clock, "2026-03-02 23:00")
    delivery = tell(sleeper)
    Retailer.objects.update(quiet_until=time(9))

    at(clock, "2026-03-03 07:00")
    assert state(delivery) == DeliveryState.PENDING
    at(clock, "2026-03-03 09:00")

    assert state(delivery) == DeliveryState.SENT


def test_a_pause_that_ends_in_quiet_hours_ends_with_them(
    sandbox: Sandbox, sleeper: Order, clock: Any
) -> None:
    sandbox.fail("whatsapp", fault="throttled", times=1)
    at(clock, "2026-03-02 21:59:59")
    first, second = tell(sleeper), tell(sleeper, Event.ORDER_CANCELLED)
    run_jobs()

    at(clock, "2026-03-02 22:00:10")
    assert {state(first), state(second)} == {DeliveryState.FAILED, DeliveryState.PENDING}
    at(clock, "2026-03-03 07:00")

    assert (state(first), state(second)) == (DeliveryState.SENT, DeliveryState.SENT)


def test_a_message_after_quiet_hours_takes_its_turn_at_the_number_anew(
    sleeper: Order, clock: Any
) -> None:
    clock.move_to(datetime(2026, 3, 2, 21, 59, tzinfo=UTC))
    delivery = tell(sleeper)
    clock.move_to(datetime(2026, 3, 2, 22, tzinfo=UTC))

    later = deliveries.send(delivery.pk, in_turn=True)

    assert later == deliveries.Later(datetime(2026, 3, 3, 7, tzinfo=UTC), in_turn=False)


@pytest.mark.parametrize(
    ("zone", "evening", "last_quiet", "morning"),
    [
        ("Asia/Kolkata", "2026-03-02 22:00", "2026-03-03 06:59:59", "2026-03-03 07:00"),
        # The clock goes forward in this night, and back in the next one.
        ("Europe/London", "2026-03-28 22:00", "2026-03-29 06:59:59", "2026-03-29 07:00"),
        ("Europe/London", "2026-10-24 22:00", "2026-10-25 06:59:59", "2026-10-25 07:00"),
    ],
)
def test_hours_are_those_of_the_clock_on_the_wall_of_the_site(
    sleeper: Order,
    clock: Any,
    settings: Settings,
    zone: str,
    evening: str,
    last_quiet: str,
    morning: str,
) -> None:
    settings.TIME_ZONE = zone
    wall = ZoneInfo(zone)
    at(clock, evening, wall)
    delivery = tell(sleeper)

    at(clock, last_quiet, wall)
    assert state(delivery) == DeliveryState.PENDING
    at(clock, morning, wall)

    assert state(delivery) == DeliveryState.SENT


@pytest.mark.parametrize(
    ("hours", "now", "left"),
    [
        (NIGHT, "23:30", timedelta(hours=7, minutes=30)),
        (NIGHT, "22:00", timedelta(hours=9)),
        (NIGHT, "03:00", timedelta(hours=4)),
        (NIGHT, "07:00", None),
        (NIGHT, "12:00", None),
        (NIGHT, "21:59:59", None),
        ((time(12), time(14)), "13:00", timedelta(hours=1)),
        ((time(12), time(12)), "12:00", None),
    ],
)
def test_quiet_hours_go_on_until_their_end(
    hours: tuple[time, time], now: str, left: timedelta | None
) -> None:
    moment = datetime.fromisoformat(f"2026-03-02 {now}").replace(tzinfo=KOLKATA)

    assert end_of_quiet(hours, moment) == (moment + left if left else None)


@pytest.mark.parametrize(
    ("evening", "hours"),
    [("2026-03-28 23:00", 7), ("2026-10-24 23:00", 9), ("2026-06-01 23:00", 8)],
)
def test_a_night_in_which_the_clock_is_moved_has_an_hour_more_or_less(
    evening: str, hours: int
) -> None:
    moment = datetime.fromisoformat(evening).replace(tzinfo=LONDON)

    until = end_of_quiet(NIGHT, moment)

    assert until is not None
    assert until - moment.astimezone(UTC) == timedelta(hours=hours)


def test_the_first_end_that_is_still_to_come_counts_where_the_clock_shows_it_twice() -> None:
    hours = (time(22), time(1, 30))
    first = datetime(2026, 10, 25, 1, 15, tzinfo=LONDON)

    assert end_of_quiet(hours, first) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert end_of_quiet(hours, first.replace(fold=1)) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


@given(
    begin=st.times(),
    end=st.times(),
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    zone=st.sampled_from(["UTC", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_quiet_hours_end_within_a_day_and_an_hour_at_the_time_that_was_named(
    begin: time, end: time, moment: datetime, zone: str
) -> None:
    begin, end = begin.replace(fold=0), end.replace(fold=0)
    now = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))

    until = end_of_quiet((begin, end), now)

    if until is not None:
        assert timedelta(0) < until - now.astimezone(UTC) <= timedelta(hours=25)
        shown = until.astimezone(now.tzinfo)
        is_skipped = shown.replace(fold=0).utcoffset() != (shown - timedelta(hours=2)).utcoffset()
        assert shown.time() == end or is_skipped
