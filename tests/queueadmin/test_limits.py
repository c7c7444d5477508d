"""Limits and pauses hold for the whole fleet and cost no attempt."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from queueadmin import queues
from queueadmin.brokers.base import LedgerBroker
from queueadmin.clock import now
from queueadmin.controls import Control
from queueadmin.exceptions import NotPermitted
from queueadmin.models import Attempt, AuditEntry, DeadLetter, Job
from queueadmin.policies import Policy, Rate, per_second
from queueadmin.states import JobState
from tests.providers import MakeBroker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def policy(settings: Any) -> Callable[..., None]:
    def use(**queues_: Policy) -> None:
        settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": queues_}

    return use


@pytest.fixture
def fleet(broker: LedgerBroker, make_broker: MakeBroker) -> Iterator[Callable[..., dramatiq.Actor]]:
    """Run an actor on three workers with a broker each, as three processes would."""
    workers: list[dramatiq.Worker] = []

    def start(function: Callable[..., Any], queue: str, threads: int = 4) -> dramatiq.Actor:
        producer = dramatiq.actor(function, queue_name=queue, broker=broker)
        for _ in range(3):
            other = make_broker()
            dramatiq.actor(function, queue_name=queue, broker=other)
            worker = dramatiq.Worker(other, worker_threads=threads, worker_timeout=100)
            worker.start()
            workers.append(worker)
        return producer

    start.workers = workers
    yield start
    for worker in workers:
        worker.stop(timeout=5_000)


def enqueue(broker: LedgerBroker, number: int) -> None:
    """Enqueue job-0, job-1 and so on."""

    @dramatiq.actor(queue_name="q", broker=broker)
    def work() -> None: ...

    broker.enqueue_many(work.message().copy(message_id=f"job-{each}") for each in range(number))


def completed() -> int:
    return Job.objects.filter(state=JobState.COMPLETED).count()


def test_concurrency_holds_over_the_whole_fleet(policy, fleet):
    policy(narrow=Policy(concurrency=3))
    lock, running, most = threading.Lock(), [], []

    def work(number):
        with lock:
            running.append(number)
            most.append(len(running))
        time.sleep(0.05)  # so that the limit is reached
        with lock:
            running.remove(number)

    actor = fleet(work, "narrow")
    for number in range(60):
        actor.send(number)

    wait_until(lambda: completed() == 60)
    assert max(most) == 3
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}


def test_rate_holds_over_the_whole_fleet_and_costs_no_attempt(policy, fleet):
    policy(slow=Policy(rate=Rate(20, 500)))
    starts = []

    def work():
        starts.append(time.monotonic())

    actor = fleet(work, "slow")
    begin = time.monotonic()
    for _ in range(70):
        actor.send()

    wait_until(lambda: completed() == 70)
    # However late a busy machine starts a job after its grant: never early. What the limiter
    # grants in each window is proven by its properties, with the server's clock.
    for number, at in enumerate(sorted(starts)):
        assert at - begin >= number // 20 * 0.5
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}
    assert not DeadLetter.objects.exists()


def test_the_server_grants_no_more_than_the_rate_in_any_window(broker):
    enqueue(broker, 100)
    control = Control(rate=per_second(10))

    first, _ = broker.transport.fetch_limited("q", 100, control, [])
    second, wait_ms = broker.transport.fetch_limited("q", 100, control, [])

    assert (len(first), len(second)) == (10, 0)
    assert 0 < wait_ms <= 1050  # the window and what keeps the actors' own clocks within it


def test_a_slot_is_free_when_its_message_has_run_or_is_given_back(broker):
    enqueue(broker, 9)
    control = Control(concurrency=2)

    def fetch(freed=()):
        return [
            parcel_id for parcel_id, _ in broker.transport.fetch_limited("q", 9, control, freed)[0]
        ]

    assert fetch() == ["job-0:1", "job-1:1"]
    assert fetch() == []
    assert fetch(["job-0:1"]) == ["job-2:1"]
    broker.transport.settle({"q": ["job-1:1"]}, [])
    assert fetch() == ["job-3:1"]
    broker.transport.give_back("q", [("job-3:1", 1)])
    assert fetch() == ["job-3:1"]


def test_the_slots_of_a_dead_worker_come_back(broker):
    enqueue(broker, 4)
    control = Control(concurrency=2)
    mine, broker.transport.worker_id = broker.transport.worker_id, "gone:1:x"
    assert len(broker.transport.fetch_limited("q", 9, control, [])[0]) == 2
    broker.transport.worker_id = mine
    assert broker.transport.fetch_limited("q", 9, control, [])[0] == []

    broker.transport.forget("gone:1:x", broker.transport.held_by("gone:1:x"))

    assert len(broker.transport.fetch_limited("q", 9, control, [])[0]) == 2


def test_a_paused_queue_starts_nothing_and_goes_on_where_it_stopped(policy, fleet):
    policy()
    started = []

    def work(number):
        started.append(number)
        time.sleep(0.02)

    actor = fleet(work, "many", threads=1)
    # At once: one by one, a slow machine would run them as fast as they come.
    actor.broker.enqueue_many(actor.message(number) for number in range(500))
    wait_until(lambda: len(started) > 5)

    assert queues.pause("many", by=None, reason="provider away")
    wait_until(
        lambda: all(
            worker.broker.controls.of("many").is_paused and not worker.broker.recorder.running
            for worker in fleet.workers
        )
    )
    stopped_at = len(started)
    time.sleep(0.5)
    assert len(started) == stopped_at < 500
    assert queues.resume("many", by=None)

    wait_until(lambda: completed() == 500)
    assert sorted(started) == list(range(500))
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}


def test_a_pause_with_an_end_is_over_by_itself(broker, policy, time_machine):
    policy()
    time_machine.move_to("2026-05-05T10:00:00Z", tick=False)
    queues.pause("q", by=None, reason="lunch", until=now() + timedelta(hours=1))

    assert broker.controls.refresh() == {"q"}
    assert broker.controls.of("q").is_paused
    time_machine.shift(3601)
    assert broker.controls.refresh() == {"q"}
    assert not broker.controls.of("q").is_paused
    # And it can be paused anew.
    assert queues.pause("q", by=None, reason="dinner")


def test_pausing_twice_changes_and_records_once(db, django_user_model):
    anna = django_user_model.objects.create_superuser("anna")

    assert queues.pause("q", by=anna, reason="first")
    assert not queues.pause("q", by=anna, reason="second")
    assert queues.resume("q", by=anna)
    assert not queues.resume("q", by=anna)

    verbs = list(AuditEntry.objects.order_by("id").values_list("verb", "reason"))
    assert verbs == [("pause", "first"), ("resume", "")]


def test_verbs_need_their_permission(db, django_user_model):
    nobody = django_user_model.objects.create(username="nobody")

    with pytest.raises(NotPermitted):
        queues.pause("q", by=nobody, reason="x")
    with pytest.raises(NotPermitted):
        queues.resume("q", by=nobody)
    with pytest.raises(NotPermitted):
        queues.limit("q", by=nobody, concurrency=1, rate=None)
    assert not AuditEntry.objects.exists()


def test_limits_set_at_run_time_win_and_say_where_they_come_from(broker, policy):
    policy(q=Policy(concurrency=5))
    assert queues.limits("q").concurrency_from == "settings"
    assert queues.limits("q").rate_from == ""

    queues.limit("q", by=None, concurrency=2, rate=per_second(7), reason="gentle")

    broker.controls.refresh()
    assert broker.controls.of("q") == Control(concurrency=2, rate=per_second(7))
    found = queues.limits("q")
    assert (found.concurrency, found.concurrency_from) == (2, "console")
    assert (str(found.rate), found.rate_from) == ("7 / s", "console")
    with pytest.raises(ValueError, match="pause it"):
        queues.limit("q", by=None, concurrency=0, rate=None)
