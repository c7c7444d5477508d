"""Every worker process is in the registry, and staff can quiet and stop it."""

import threading
import time
from datetime import timedelta

import dramatiq
import pytest

from queueadmin import registry, workers
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, Job, Worker
from queueadmin.states import JobState

pytestmark = pytest.mark.django_db(transaction=True)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(registry, "BEAT_SECONDS", 0.1)


@pytest.fixture
def boss(django_user_model):
    return django_user_model.objects.create_superuser("boss")


def test_the_registry_says_what_each_process_is_and_runs_until_it_ends(broker, start_worker):
    go_on = threading.Event()

    def work():
        assert go_on.wait(20)

    job = dramatiq.actor(work, queue_name="slow", broker=broker).send()
    worker = start_worker(threads=3)

    wait_until(lambda: any(row.running for row in Worker.objects.all()))
    row = Worker.objects.get()
    assert row.threads == 3
    assert row.queues == ["slow"]
    assert row.memory_bytes > 1_000_000
    assert row.versions["dramatiq"]
    assert [run["job"] for run in row.running] == [job.message_id]
    assert workers.alive().count() == 1
    go_on.set()
    wait_until(lambda: Worker.objects.filter(running=[], recorded=1).exists())

    worker.stop(timeout=5_000)

    assert not Worker.objects.exists()


def test_a_quiet_process_starts_nothing_and_goes_on_when_resumed(broker, start_worker, boss):
    actor = dramatiq.actor(lambda: None, actor_name="work", queue_name="q", broker=broker)
    start_worker()
    wait_until(lambda: Worker.objects.exists())
    worker = Worker.objects.get().id

    assert workers.quiet(worker, by=boss, reason="deploy")
    assert not workers.quiet(worker, by=boss)
    wait_until(lambda: broker.is_quiet)
    actor.send()
    time.sleep(0.5)  # nothing may happen: there is no event to wait for
    assert Job.objects.get().state == JobState.WAITING

    assert workers.resume(worker, by=boss)
    wait_until(lambda: Job.objects.get().state == JobState.COMPLETED)
    assert Job.objects.get().attempts == 1
    assert list(AuditEntry.objects.order_by("id").values_list("verb", flat=True)) == [
        "quiet",
        "resume",
    ]


def test_stop_asks_the_process_to_end(broker, start_worker, boss):
    asked = threading.Event()
    broker.request_stop = asked.set
    start_worker()
    wait_until(lambda: Worker.objects.exists())

    assert workers.stop(Worker.objects.get().id, by=boss)

    assert asked.wait(20)


def test_without_the_permission_nothing_happens(django_user_model):
    at = now()
    Worker.objects.create(id="h:1:a", host="h", pid=1, started_at=at, seen_at=at, threads=1)
    clerk = django_user_model.objects.create_user("clerk")

    for verb in (workers.quiet, workers.resume, workers.stop):
        with pytest.raises(NotPermitted):
            verb("h:1:a", by=clerk)

    assert Worker.objects.get().wish == ""


def test_rows_of_processes_long_gone_are_removed_and_lost_ones_stay_visible():
    at = now()
    for name, age in (("old", timedelta(days=2)), ("lost", timedelta(minutes=5))):
        Worker.objects.create(
            id=name, host="h", pid=1, started_at=at - age, seen_at=at - age, threads=1
        )

    registry.tidy(None)

    assert [row.id for row in Worker.objects.all()] == ["lost"]
    assert not workers.alive().exists()
