import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from django.test import override_settings
from django_apscheduler.models import DjangoJob, DjangoJobExecution

from queueadmin import scheduling
from queueadmin.exceptions import ConfigurationError
from queueadmin.models import Job, ScheduleOccasion
from queueadmin.schedules import Schedule

DUE = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def tick() -> Iterator[dramatiq.Actor]:
    """An actor that schedules may name."""
    broker = dramatiq.get_broker()

    @dramatiq.actor(actor_name="tick", queue_name="data-cleanup")
    def actor(*args, **kwargs):
        pass

    yield actor
    del broker.actors["tick"]


@pytest.fixture
def schedules() -> Iterator[dict[str, Schedule]]:
    """The schedules of the settings, to be filled by the test."""
    schedules: dict[str, Schedule] = {}
    with override_settings(QUEUEADMIN={**django_settings.QUEUEADMIN, "SCHEDULES": schedules}):
        yield schedules


def ticks() -> list[Job]:
    return list(Job.objects.filter(actor="tick"))


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class RunningSchedulers:
    """Schedulers in threads of their own, as processes would run them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, schedules) -> scheduling.Scheduler:
        scheduler = scheduling.Scheduler(schedules)
        thread = threading.Thread(target=self._run, args=[scheduler])
        thread.start()
        self._stack.callback(thread.join, 20)
        self._stack.callback(scheduler.request_stop)
        return scheduler

    @staticmethod
    def _run(scheduler) -> None:
        try:
            scheduler.run()
        finally:
            connections.close_all()


@pytest.fixture
def running() -> Iterator[RunningSchedulers]:
    with ExitStack() as stack:
        yield RunningSchedulers(stack)


@pytest.mark.django_db
def test_an_occasion_enqueues_the_actors_message_with_its_arguments(schedules):
    schedules["hourly"] = Schedule(
        actor="tick", every=timedelta(hours=1), args=(1,), kwargs={"dry": True}
    )

    assert scheduling.enqueue("hourly", DUE)

    [job] = ticks()
    assert (job.queue, job.id) == ("data-cleanup", scheduling.job_id("hourly", DUE))
    assert job.payload["args"] == [1]
    assert job.payload["kwargs"] == {"dry": True}


@pytest.mark.django_db
def test_the_same_occasion_is_not_enqueued_again_even_after_its_job_is_gone(schedules):
    schedules["hourly"] = Schedule(actor="tick", every=timedelta(hours=1))
    scheduling.enqueue("hourly", DUE)
    Job.objects.all().delete()

    assert not scheduling.enqueue("hourly", DUE)

    assert ticks() == []


@pytest.mark.django_db
def test_an_occasion_whose_enqueue_fails_can_be_enqueued_later(schedules, monkeypatch):
    schedules["hourly"] = Schedule(actor="tick", every=timedelta(hours=1))
    broker = dramatiq.get_broker()
    with monkeypatch.context() as patch:
        patch.setattr(broker, "enqueue", refuse)
        with pytest.raises(OperationalError):
            scheduling.enqueue("hourly", DUE)

    assert scheduling.enqueue("hourly", DUE)


def refuse(message):
    raise OperationalError("the ledger is away")


@pytest.mark.django_db
def test_an_unknown_schedule_is_named_in_the_error(schedules):
    schedules["hourly"] = Schedule(actor="tick", every=timedelta(hours=1))

    with pytest.raises(ConfigurationError, match="No schedule is named 'daily'; known: hourly"):
        scheduling.enqueue("daily", DUE)


@pytest.mark.django_db
def test_running_a_schedule_by_hand_enqueues_its_job_at_once(schedules):
    schedules["hourly"] = Schedule(actor="tick", every=timedelta(hours=1))

    scheduling.run_now("hourly")

    assert len(ticks()) == 1


@pytest.mark.django_db
def test_pruning_keeps_recent_occasions_and_the_last_of_each_schedule(schedules):
    old = datetime(2020, 1, 1, tzinfo=UTC)
    for name, due_at in [
        ("yearly", old),
        ("hourly", old),
        ("hourly", old + timedelta(hours=1)),
        ("hourly", datetime.now(UTC)),
    ]:
        ScheduleOccasion.objects.create(schedule=name, due_at=due_at, job_id="x")

    deleted = scheduling.prune(older_than=timedelta(days=7))

    assert deleted == 2
    assert ScheduleOccasion.objects.filter(schedule="yearly").exists()


@pytest.mark.django_db
def test_pruning_deletes_what_django_apscheduler_noted_about_old_occasions():
    job = DjangoJob.objects.create(id="hourly", job_state=b"")
    for run_time in (datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)):
        DjangoJobExecution.objects.create(job=job, run_time=run_time, status="Executed")

    scheduling.prune(older_than=timedelta(days=7))

    assert DjangoJobExecution.objects.count() == 1


def test_the_command_refuses_a_schedule_of_an_actor_nobody_declared(schedules):
    schedules["hourly"] = Schedule(actor="tik", every=timedelta(hours=1))

    with pytest.raises(CommandError, match=r"which nobody declared\. Did you mean 'tick'"):
        call_command("runscheduler")


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_enqueue_each_occasion_once(schedules, running):
    schedules["often"] = Schedule(actor="tick", every=timedelta(seconds=1))
    running.start(schedules)
    running.start(schedules)

    wait_until(lambda: ScheduleOccasion.objects.count() >= 4)

    due = sorted(ScheduleOccasion.objects.values_list("due_at", flat=True))
    # A scheduler that was held up goes on with the latest.
    gaps = {(at - due[0]).total_seconds() for at in due}
    assert len(gaps) == len(due)
    assert all(gap.is_integer() for gap in gaps)
    wait_until(lambda: len(ticks()) >= len(due))
    assert {job.id for job in ticks()} >= {scheduling.job_id("often", at) for at in due}
    assert Job.objects.count() <= ScheduleOccasion.objects.count()


@pytest.mark.django_db(transaction=True)
def test_a_scheduler_that_starts_makes_up_once_for_occasions_missed_meanwhile(schedules, running):
    schedules["nightly"] = Schedule(actor="tick", cron="0 2 * * *")
    first = running.start(schedules)
    wait_until(lambda: DjangoJob.objects.filter(id="nightly").exists())
    first.request_stop()
    missed = datetime.now(UTC) - timedelta(days=3)
    postpone("nightly", missed)

    running.start(schedules)

    wait_until(lambda: ScheduleOccasion.objects.exists())
    [occasion] = ScheduleOccasion.objects.all()
    assert occasion.due_at > missed
    wait_until(lambda: DjangoJob.objects.get(id="nightly").next_run_time > datetime.now(UTC))


def postpone(name, next_run_time):
    """Set the stored next occasion of a schedule, as an older scheduler left it."""
    store = scheduling._Store()
    store._scheduler, store._alias = scheduling.Scheduler({}), "default"
    stored = store.lookup_job(name)
    stored._modify(next_run_time=next_run_time)
    store.update_job(stored)


@pytest.mark.django_db(transaction=True)
def test_a_schedule_that_left_the_settings_leaves_the_store(schedules, running):
    first = running.start({"old": Schedule(actor="tick", every=timedelta(hours=1))})
    wait_until(lambda: DjangoJob.objects.filter(id="old").exists())
    first.request_stop()

    running.start({"new": Schedule(actor="tick", every=timedelta(hours=1))})

    wait_until(lambda: DjangoJob.objects.filter(id="new").exists())
    assert not DjangoJob.objects.filter(id="old").exists()


@pytest.mark.django_db(transaction=True)
def test_a_changed_time_replaces_the_stored_one(schedules, running):
    first = running.start({"report": Schedule(actor="tick", cron="0 2 1 1 *")})
    wait_until(lambda: DjangoJob.objects.filter(id="report").exists())
    first.request_stop()

    running.start({"report": Schedule(actor="tick", every=timedelta(minutes=1))})

    soon = datetime.now(UTC) + timedelta(minutes=2)
    wait_until(lambda: DjangoJob.objects.get(id="report").next_run_time < soon)


@pytest.mark.django_db(transaction=True)
def test_an_occasion_that_could_not_be_enqueued_stays_due(schedules, running, monkeypatch):
    monkeypatch.setattr(scheduling, "RETRY_SECONDS", 0.1)
    schedules["often"] = Schedule(actor="tick", every=timedelta(seconds=5))
    refused = []

    def refuse_first(name, due_at, enqueue=scheduling.enqueue):
        if not refused:
            refused.append(due_at)
            raise OperationalError("the ledger is away")
        return enqueue(name, due_at)

    monkeypatch.setattr(scheduling, "enqueue", refuse_first)

    running.start(schedules)

    wait_until(lambda: ScheduleOccasion.objects.exists())
    assert ScheduleOccasion.objects.earliest("due_at").due_at == refused[0]


@pytest.mark.django_db(transaction=True)
def test_a_scheduler_outlives_an_outage_of_the_database(schedules, running, monkeypatch):
    monkeypatch.setattr(scheduling, "RETRY_SECONDS", 0.1)
    schedules["often"] = Schedule(actor="tick", every=timedelta(seconds=1))
    outages = iter([True] * 5)

    def away(self, *args, original=scheduling._Store.get_due_jobs):
        if next(outages, False):
            raise OperationalError("the database is away")
        return original(self, *args)

    monkeypatch.setattr(scheduling._Store, "get_due_jobs", away)

    def away_at_start(self, original=scheduling._Store.get_all_jobs):
        if next(outages, False):
            raise OperationalError("the database is away")
        return original(self)

    monkeypatch.setattr(scheduling._Store, "get_all_jobs", away_at_start)

    running.start(schedules)

    wait_until(lambda: ScheduleOccasion.objects.exists())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_by_itself_when_it_is_told_to(signum):
    process = subprocess.Popen(
        [sys.executable, "manage.py", "runscheduler"],
        cwd=django_settings.BASE_DIR,
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"},
            "DATABASE_URL": database_url(),
        },
    )
    try:
        wait_until(lambda: DjangoJob.objects.filter(id="recovery").exists())

        process.send_signal(signum)

        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def database_url():
    """Address of the test's own database, for processes started by a test."""
    stored = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{stored['NAME']}"
    return (
        f"postgres://{stored['USER']}:{stored['PASSWORD']}@{stored['HOST']}:{stored['PORT']}"
        f"/{stored['NAME']}"
    )
