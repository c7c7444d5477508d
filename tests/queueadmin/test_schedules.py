from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured

from queueadmin.schedules import Schedule


@pytest.mark.parametrize(
    "times", [{}, {"cron": "0 2 * * *", "every": timedelta(hours=1)}], ids=["none", "both"]
)
def test_a_schedule_refuses_anything_but_one_time(times):
    with pytest.raises(ImproperlyConfigured, match="either cron or every"):
        Schedule(actor="report", **times)


@pytest.mark.parametrize("every", [timedelta(0), timedelta(seconds=-5), timedelta(seconds=1.5)])
def test_a_schedule_refuses_an_interval_that_is_not_whole_seconds(every):
    with pytest.raises(ImproperlyConfigured, match="whole seconds"):
        Schedule(actor="report", every=every)


@pytest.mark.parametrize("cron", ["", "* * * *", "61 * * * *", "often", "0 2 * * noday"])
def test_a_schedule_refuses_a_cron_line_that_cannot_be_read(cron):
    with pytest.raises(ImproperlyConfigured, match="cannot be read"):
        Schedule(actor="report", cron=cron)


def test_a_schedule_refuses_numbered_weekdays_because_programs_disagree_on_them():
    with pytest.raises(ImproperlyConfigured, match="named, mon to sun"):
        Schedule(actor="report", cron="0 2 * * 1-5")


def test_intervals_are_counted_from_a_fixed_moment_whenever_the_scheduler_was_started():
    hourly = Schedule(actor="report", every=timedelta(hours=1)).trigger(UTC)

    occasion = hourly.get_next_fire_time(None, datetime(2026, 3, 4, 10, 20, 7, tzinfo=UTC))

    assert occasion == datetime(2026, 3, 4, 11, tzinfo=UTC)


def test_cron_is_read_in_the_sites_time_zone():
    nightly = Schedule(actor="report", cron="0 2 * * mon-fri").trigger(ZoneInfo("Europe/Berlin"))

    occasion = nightly.get_next_fire_time(None, datetime(2026, 1, 9, 12, tzinfo=UTC))

    assert occasion == datetime(2026, 1, 12, 1, tzinfo=UTC)
