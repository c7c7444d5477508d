"""What the policies promise, on three real worker processes; figures are in `benchmarks`."""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import pytest
from django.db import connection

from benchmarks.fleet import (
    Fleet,
    message,
    most_at_once,
    most_in_window,
    send_many,
    wait_until,
)
from queueadmin import queues
from queueadmin.brokers.base import LedgerBroker
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import JobState
from tests.providers import QueueServer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.every_provider,
]

HIGH = 1_000_000


@pytest.fixture
def fleet(broker: LedgerBroker, queue_server: QueueServer) -> Iterator[Fleet]:
    fleet = Fleet(
        processes=3,
        threads=4,
        database=str(connection.settings_dict["NAME"]),
        server=queue_server.environment,
        namespace=queue_server.namespace,
    )
    with fleet:
        yield fleet


@contextmanager
def collected(read: Callable[[], dict[Any, float]]) -> Iterator[dict[Any, float]]:
    """Read again and again what is there for a moment only, and keep all of it."""
    seen: dict[Any, float] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            seen.update(read())
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def completed() -> int:
    return Job.objects.filter(state=JobState.COMPLETED).count()


def test_limits_hold_over_all_processes_and_cost_no_attempt(fleet, broker, queue_server):
    with collected(lambda: queue_server.granted("rated-briefly")) as granted:
        send_many(broker, "rated-briefly", range(130))
        runs = fleet.wait_for(130, 60)
        wait_until(lambda: len(granted) == 130, 5)
    by_server = most_in_window(list(granted.values()), 0.5)
    # How closely a start follows its grant depends on the machine; that it follows one does not.
    starts_and_grants = zip(
        sorted(run.begun for run in runs), sorted(granted.values()), strict=True
    )
    # So long that the limit is reached also where each start takes its time.
    send_many(broker, "narrow", range(1_000, 1_200), 0.1)
    at_once = most_at_once([run for run in fleet.wait_for(330, 60) if run.number >= 1_000])

    wait_until(lambda: completed() == 330, 20)
    assert by_server == 20
    # The server rounds its clock.
    assert all(start >= grant - 0.002 for start, grant in starts_and_grants)
    assert at_once == 10
    assert len({run.process for run in fleet.runs()}) == 3
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}
    assert Attempt.objects.count() == 330
    assert not DeadLetter.objects.exists()


def test_a_high_job_overtakes_all_but_a_few_per_thread(fleet, broker):
    sent = []
    send_many(broker, "open", range(1_500), 0.02)
    for probe in range(5):
        fleet.wait_for(200 * (probe + 1), 60)
        broker.enqueue(message("open", HIGH + probe, priority="high"))
        sent.append(time.time())

    runs = fleet.wait_for(1_505, 60)

    overtook = []
    normal = [run.begun for run in runs if run.number < HIGH]
    begun = {run.number: run.begun for run in runs}
    for probe, moment in enumerate(sent):
        overtook.append(bisect_left(normal, begun[HIGH + probe]) - bisect_left(normal, moment))
    # Jobs of 20 ms count milliseconds: whatever else holds a process of this machine up once
    # for a tenth of a second is not what the promise is about.
    assert median(overtook) <= 2 * fleet.threads


def test_a_pause_holds_within_a_second_and_the_queue_goes_on_where_it_stopped(fleet, broker):
    late = []
    send_many(broker, "open", range(6_000), 0.01)
    for _ in range(3):
        fleet.wait_for(len(fleet.runs()) + 300, 60)
        queues.pause("open", by=None, reason="provider away")
        paused = time.time()
        time.sleep(2.0)  # twice what it may take
        late.append(max(run.begun for run in fleet.runs()) - paused)
        queues.resume("open", by=None)
    assert len(fleet.runs()) < 6_000

    assert max(late) <= 1.0
    runs = fleet.wait_for(6_000, 60)
    assert sorted(run.number for run in runs) == list(range(6_000))
    wait_until(lambda: completed() == 6_000, 20)
    assert Attempt.objects.count() == 6_000


def test_no_scheduled_job_starts_early_and_none_is_forgotten(fleet, broker):
    first = round(time.time() * 1000) + 1_000
    due = {number: first + (number * 37) % 4_000 for number in range(600)}
    broker.enqueue_many(message("timed", number, eta=at) for number, at in due.items())

    runs = fleet.wait_for(600, 60)

    assert sorted(run.number for run in runs) == list(range(600))
    assert [run for run in runs if run.begun < due[run.number] / 1000] == []
