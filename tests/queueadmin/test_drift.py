"""Early warning from the ledger's own statistics."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import override_settings
from pytest_django import DjangoAssertNumQueries

from queueadmin import alerts, drift
from queueadmin.models import HourStatistic, MinuteStatistic
from queueadmin.states import AlertKind

pytestmark = pytest.mark.django_db
#: A Wednesday; the middle of the half hour before it lies in the hour of 9.
AT = datetime(2026, 3, 4, 9, 40, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_nine() -> Any:
    with time_machine.travel(AT, tick=False):
        yield


def add_past(*, hour: int = 9, bad: int = 2, run: str = "run_4", **fields: Any) -> None:
    """Four weeks of the same hour: 200 attempts a day, of which `bad` failed."""
    values = {"queue": "mail", "actor": "send", **fields}
    for day in range(1, 29):
        at = AT.replace(hour=hour, minute=0) - timedelta(days=day)
        counts = {"completed": 200 - bad, "retried": bad, run: 200}
        if day <= 2:
            # The last two days are kept by the minute.
            MinuteStatistic.objects.create(
                minute=at + timedelta(minutes=17), shard=64, **values, **counts
            )
        else:
            HourStatistic.objects.create(hour=at, **values, **counts)


def add_now(*, completed: int, retried: int, run: str = "run_4", **fields: Any) -> None:
    values = {"queue": "mail", "actor": "send", **fields}
    counts = {"completed": completed, "retried": retried, run: completed + retried}
    minute = AT - timedelta(minutes=5)
    MinuteStatistic.objects.create(minute=minute, shard=1, **values, **counts)


def found() -> list[tuple[str, str, bool]]:
    return [(one.kind.value, one.subject, one.opens) for one in drift.readings()]


def test_more_failures_than_usual_at_this_hour_are_told_in_words() -> None:
    add_past()
    add_now(completed=88, retried=12)

    (actor, queue) = sorted(drift.readings(), key=lambda one: not one.opens)

    assert actor.text == "send (mail): failures 12 % — usual for this hour 1 %"
    assert (actor.kind, actor.queue, actor.opens) == (AlertKind.FAILURES, "mail", True)
    # The queue is explained by its actor.
    assert (queue.subject, queue.opens) == ("mail", False)


def test_other_hours_do_not_count() -> None:
    add_past()
    add_past(hour=3, bad=40)
    add_now(completed=88, retried=12)
    assert ("failures", "send (mail)", True) in found()

    with time_machine.travel(AT.replace(hour=3), tick=False):
        MinuteStatistic.objects.filter(shard=1).update(
            minute=AT.replace(hour=3) - timedelta(minutes=5)
        )
        assert found() == []


def test_the_hour_is_that_of_the_clock_on_the_wall() -> None:
    """Berlin went to summer time between: 9:40 there was 8:40 UTC, and is 7:40 UTC."""
    summer = datetime(2026, 4, 8, 7, 40, tzinfo=UTC)
    for day in range(1, 29):
        is_summer = summer - timedelta(days=day) >= datetime(2026, 3, 29, 1, tzinfo=UTC)
        hour = (summer - timedelta(days=day)).replace(minute=0, hour=7 if is_summer else 8)
        common = {"queue": "mail", "actor": "send", "completed": 150, "retried": 50}
        if day > 2:
            HourStatistic.objects.create(hour=hour, **common)
    with (
        override_settings(TIME_ZONE="Europe/Berlin"),
        time_machine.travel(summer, tick=False),
    ):
        MinuteStatistic.objects.create(
            minute=summer - timedelta(minutes=5), shard=1, queue="mail", actor="send",
            completed=75, retried=25,
        )  # fmt: skip
        assert found() == []
        # Read by UTC, a third of these days would be missing; all 26 are there.
        assert len(drift._past({("mail", "send")})[("mail", "send")]) == 26


def test_longer_runs_than_usual_are_told() -> None:
    add_past(run="run_4")
    add_now(completed=60, retried=0, run="run_6")

    texts = [one.text for one in drift.readings() if one.opens]

    assert texts == [
        "send (mail): half of the runs take over 650 ms — usual for this hour 65 ms",
    ]


def test_a_queue_is_told_where_no_actor_of_it_stands_out() -> None:
    for number in range(10):
        add_past(actor=f"send-{number}", bad=2)
        add_now(actor=f"send-{number}", completed=16, retried=2)

    assert [subject for _kind, subject, opens in found() if opens] == ["mail"]


def test_what_is_usual_is_no_alarm_and_tiny_samples_are_none() -> None:
    add_past()
    assert found() == []

    add_now(completed=99, retried=1)
    add_now(queue="new", actor="new", completed=0, retried=90)
    assert found() == []


def test_a_warning_opens_an_alert_and_closes_when_it_is_as_usual_again() -> None:
    add_past()
    add_now(completed=80, retried=20)
    lookout = alerts.Lookout([drift.CONDITION])
    assert lookout.look() == 1
    assert drift.open_alerts().get().subject == "send (mail)"

    # Above the usual, but no more for certain: neither over nor told again.
    MinuteStatistic.objects.filter(shard=1).update(completed=95, retried=5)
    lookout._due.clear()
    assert lookout.look() == 0
    assert drift.open_alerts().get().text.startswith("send (mail): failures 5 %")

    MinuteStatistic.objects.filter(shard=1).update(completed=99, retried=1)
    lookout._due.clear()
    assert lookout.look() == 1
    assert not drift.open_alerts().exists()


def test_looking_takes_a_fixed_number_of_queries(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(12):
        add_past(actor=f"send-{number}")
        add_now(actor=f"send-{number}", completed=90, retried=10)

    with django_assert_max_num_queries(5):
        assert found()
