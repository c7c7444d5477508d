"""A server that loses everything it held, and workers that may have been declared dead."""

import os
import threading
import time
from datetime import timedelta

import dramatiq
import pytest

from queueadmin import dispatcher, ledger
from queueadmin.brokers.transport import ServerSettling
from queueadmin.clock import now
from queueadmin.models import Attempt, Job
from queueadmin.states import JobState

#: 10 makes it 10,000 waiting, 1,000 retrying and 1,000 scheduled jobs.
SCALE = int(os.environ.get("TEST_SCALE", "1"))

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def completed():
    return Job.objects.filter(state=JobState.COMPLETED).count()


@pytest.fixture
def client(broker):
    return broker.transport._client


@pytest.fixture
def work(broker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        work.ran.append(number)

    work.ran = []
    return work


def overdue():
    Job.objects.filter(state=JobState.WAITING).update(due_at=now() - timedelta(minutes=1))


def test_all_that_waited_in_a_flushed_server_runs_at_once_and_nothing_twice(
    broker, client, start_worker, settings
):
    gate, ran = threading.Event(), []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        gate.wait(30)
        ran.append(number)

    broker.transport.settling_ms = 3_000
    waiting, later = 1000 * SCALE, 100 * SCALE
    broker.enqueue_many([work.message(number) for number in range(waiting)])
    soon = work.message().copy(options={"eta": (time.time() + 2) * 1000}).options
    broker.enqueue_many([work.message(waiting + n).copy(options=soon) for n in range(2 * later)])
    # Half of them have failed once.
    failed = Job.objects.filter(state=JobState.SCHEDULED).values_list("pk", flat=True)[:later]
    Job.objects.filter(pk__in=list(failed)).update(state=JobState.RETRYING, attempts=1)
    # Confirmed long ago: only the flush can make anybody look for them.
    Job.objects.filter(state=JobState.WAITING).update(
        due_at=now() - timedelta(minutes=1), in_broker=True
    )
    start_worker()
    wait_until(lambda: len(broker.recorder.running) == 2)

    client.flushdb()
    # What is held by now includes messages that are fetched and have not started.
    wait_until(lambda: broker.heart.era >= 1 and len(broker.transport.in_hand("q")) > 2)
    gate.set()

    total = waiting + 2 * later
    wait_until(lambda: completed() == total, 110)
    assert sorted(ran) == list(range(total))
    assert Attempt.objects.count() == total
    wait_until(lambda: broker.transport.size("q") == 0)


def test_a_server_flushed_while_nobody_worked_is_refilled_by_the_first_worker(
    broker, client, start_worker, work
):
    for number in range(20):
        work.send(number)
    Job.objects.update(due_at=now() - timedelta(minutes=1), in_broker=True)
    client.flushdb()
    start_worker()

    wait_until(lambda: completed() == 20)
    assert sorted(work.ran) == list(range(20))


def test_what_is_due_does_not_wait_until_all_is_there_again(
    broker, client, work, start_worker, monkeypatch
):
    @dramatiq.actor(queue_name="soon", broker=broker)
    def timed():
        pass

    # Twenty steps of which each takes its time.
    monkeypatch.setattr(dispatcher, "_BATCH", 50)
    monkeypatch.setattr(dispatcher, "_LONG_SECONDS", 0.1)
    broker.enqueue_many([work.message(number) for number in range(1000)])
    Job.objects.update(due_at=now() - timedelta(minutes=1), in_broker=True)
    client.flushdb()
    timed.send_with_options(delay=1_000)
    looked, missing = [], broker.transport.missing

    def slow_look(parcels, **options):
        looked.append(len(parcels))
        time.sleep(0.15)
        return missing(parcels, **options)

    monkeypatch.setattr(broker.transport, "missing", slow_look)
    start_worker()

    wait_until(lambda: Job.objects.filter(queue="soon", state=JobState.COMPLETED).exists())
    assert 50 * len(looked) < 1000
    wait_until(lambda: completed() == 1001)
    assert sorted(work.ran) == list(range(1000))


def test_nothing_is_missed_before_the_workers_could_say_what_they_hold(broker, client, work):
    work.send(1)
    overdue()
    client.flushdb()
    broker.transport.settling_ms = 60_000

    with pytest.raises(ServerSettling):
        broker.transport.missing(ledger.parcels_of(Job.objects.all()))
    assert dispatcher.confirm(broker) == 0
    assert sum(dispatcher.refill(broker)) == 0
    assert Job.objects.get().dispatch == 1


def test_the_slots_of_what_runs_are_taken_again_after_a_flush(
    broker, client, start_worker, settings
):
    from queueadmin.policies import Policy

    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": {"q": Policy(concurrency=1)}}
    gate, running, most = threading.Event(), [], []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        running.append(number)
        most.append(len(running))
        gate.wait(20)
        running.remove(number)

    for number in range(3):
        work.send(number)
    start_worker(threads=3)
    wait_until(lambda: running)

    client.flushdb()
    wait_until(lambda: client.hlen("test:q.slots") == 1)
    work.send(3)
    overdue()
    wait_until(lambda: broker.transport.size("q") == 4)
    gate.set()

    wait_until(lambda: completed() == 4)
    assert max(most) == 1


def test_a_producer_that_was_late_does_not_start_a_job_beside_its_next_dispatch(
    broker, start_worker, work, monkeypatch
):
    send, late = broker.transport.send, []
    monkeypatch.setattr(broker.transport, "send", late.append)
    work.send(1)
    overdue()
    monkeypatch.setattr(broker.transport, "send", send)

    assert dispatcher.confirm(broker) == 1
    send(late[0])

    assert broker.transport.size("q") == 1
    start_worker()
    wait_until(lambda: completed() == 1)
    wait_until(lambda: broker.transport.size("q") == 0)
    assert work.ran == [1]


def test_what_a_frozen_worker_held_and_others_rescued_is_not_started_by_it(broker, start_worker):
    gate, ran = threading.Event(), []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)
        gate.wait(20)

    for number in range(10):
        work.send(number)
    for _ in range(200):
        broker.note_run("q", 0.1)  # short jobs are fetched in large numbers
    start_worker(threads=1)
    wait_until(lambda: len(broker.hand("q").held) == 10 and ran)
    # The frozen worker is this one: it has heard nothing for too long, and somebody else
    # has dispatched again what it held.
    broker.heart._fresh_until = float("-inf")
    wait_until(lambda: broker.heart.era >= 1)
    first = ran[0]
    # So that its own dispatcher does not find them unconfirmed.
    Job.objects.update(due_at=now())
    rescued = ledger.rescue(
        Job.objects.exclude(
            id__in=[run.job for run in broker.recorder.running.values()]
        ).values_list("id", "dispatch")
    )
    assert len(rescued) == 9
    gate.set()
    wait_until(lambda: not broker.hand("q").held)
    assert ran == [first]

    broker.push(rescued)
    wait_until(lambda: completed() == 10)
    assert sorted(ran) == list(range(10))


def test_a_suspect_job_has_one_winner_whoever_is_first(broker, work):
    work.send(1)
    (parcel,) = ledger.parcels_of(Job.objects.all())

    assert ledger.claim(parcel.job, 1, worker="a:1") == 0
    assert ledger.claim(parcel.job, 1, worker="b:1") is None
    assert ledger.rescue([(parcel.job, 1)], [JobState.WAITING]) == []

    (again,) = ledger.rescue([(parcel.job, 1)])
    assert again.id == f"{parcel.job}:2?"
    assert ledger.claim(parcel.job, 1, worker="a:1") is None
    assert ledger.claim(parcel.job, 2, worker="b:1") == 0
