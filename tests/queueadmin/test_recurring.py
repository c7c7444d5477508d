from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from django.test import override_settings

from queueadmin import recurring, scheduling
from queueadmin.brokers import RedisBroker
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, Job
from queueadmin.schedules import Schedule
from tests.queueadmin.rows import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker")]
SETTINGS = {"SCHEDULES": {"sweep": Schedule(actor="sweep", every=timedelta(minutes=5))}}


def declare(name: str) -> None:
    """Declare an actor that does nothing on the test's broker."""

    def nothing() -> None:
        """Do nothing."""

    dramatiq.actor(nothing, actor_name=name, queue_name="mail")


@pytest.fixture(autouse=True)
def configured(broker: RedisBroker) -> Any:
    with override_settings(QUEUEADMIN=SETTINGS):
        declare("sweep")
        yield


def test_the_occasions_of_a_paused_schedule_are_left_out() -> None:
    assert recurring.pause("sweep", by=None, reason="migration")
    assert not recurring.pause("sweep", by=None)

    assert not scheduling.enqueue("sweep", now())
    assert not Job.objects.exists()

    assert recurring.resume("sweep", by=None)
    assert not recurring.resume("sweep", by=None)
    assert scheduling.enqueue("sweep", now())
    assert Job.objects.count() == 1


def test_a_person_may_run_it_also_while_it_is_paused() -> None:
    recurring.pause("sweep", by=None)

    job = recurring.run_now("sweep", by=None, reason="looking")

    assert Job.objects.get().pk == job
    assert recurring.listed()[0].last_job == Job.objects.get()
    assert AuditEntry.objects.get(verb="run now").detail == {"job": job}


VERBS: list[Callable[..., Any]] = [
    lambda by: recurring.pause("sweep", by=by),
    lambda by: recurring.resume("sweep", by=by),
    lambda by: recurring.run_now("sweep", by=by),
]


@pytest.mark.parametrize("act", VERBS)
def test_a_verb_refuses_who_lacks_its_permission(act: Callable[..., Any]) -> None:
    with pytest.raises(NotPermitted):
        act(make_user("viewer", "view_schedulecontrol"))

    assert not AuditEntry.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"every": timedelta(minutes=5)}, "every 5 min"),
        ({"every": timedelta(seconds=90)}, "every 90 s"),
        ({"every": timedelta(days=1)}, "every 1 d"),
        ({"cron": "0 6 * * *"}, "every day at 06:00"),
        ({"cron": "30 7 * * mon-fri"}, "mon-fri at 07:30"),
        ({"cron": "5 0 1 * *"}, "on day 1 of the month at 00:05"),
        ({"cron": "15 * * * *"}, "every hour at minute 15"),
        ({"cron": "*/10 * * * *"}, "every 10 min"),
        ({"cron": "0 6 1 1 *"}, "0 6 1 1 *"),
        ({"cron": "0 6,18 * * *"}, "0 6,18 * * *"),
    ],
)
def test_a_schedule_is_said_in_words(schedule: dict[str, Any], words: str) -> None:
    assert recurring.in_words(Schedule(actor="x", **schedule)) == words
