"""All open jobs move from one message server to another, and each runs once."""

import io
import json
import threading
import time
from datetime import timedelta

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from queueadmin import dispatcher, leases, ledger, relocating
from queueadmin.brokers import RedisBroker
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.clock import now
from queueadmin.controls import RELOCATION
from queueadmin.exceptions import ConfigurationError, NotPermitted
from queueadmin.models import Attempt, AuditEntry, Job, Lease
from queueadmin.states import JobState
from tests import providers
from tests.queueadmin.rows import make_user
from tests.queueadmin.stepped import Process

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

WAYS = [
    ("redis", "other redis"),
    pytest.param(("redis", "rabbitmq"), marks=pytest.mark.rabbitmq),
    pytest.param(("rabbitmq", "redis"), marks=pytest.mark.rabbitmq),
]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def completed():
    return Job.objects.filter(state=JobState.COMPLETED).count()


class Side:
    """One of the two servers, with brokers on it."""

    def __init__(self, kind, redis_url, rabbitmq_url):
        if kind == "rabbitmq":
            self._server = providers.RabbitMQServer(rabbitmq_url)
            self.make = self._server.make_broker
        else:
            self._server = None
            self._brokers = []
            self.make = lambda: self._redis(redis_url, kind.replace(" ", "-"))
        self.broker = self.make()

    def _redis(self, url, namespace):
        broker = RedisBroker(url=url, namespace=namespace)
        broker.transport.settling_ms = 0
        self._brokers.append(broker)
        return broker

    def close(self):
        if self._server is not None:
            self._server.close()
        else:
            for broker in self._brokers:
                broker.close()


@pytest.fixture(params=WAYS, ids=lambda way: " to ".join(way))
def sides(request, redis_url, rabbitmq_url):
    previous = dramatiq.get_broker()
    old, new = (Side(kind, redis_url, rabbitmq_url) for kind in request.param)
    dramatiq.set_broker(old.broker)
    yield old, new
    dramatiq.set_broker(previous)
    old.close()
    new.close()


@pytest.fixture
def soon(monkeypatch):
    """Nobody else runs who would have to be waited for."""
    monkeypatch.setattr(relocating, "SEEN_SECONDS", 0)
    monkeypatch.setattr(relocating, "_LOOK_SECONDS", 0.05)


def enqueue(broker, number, **options):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number): ...

    messages = [work.message(each).copy(options=options) for each in range(number)]
    broker.enqueue_many(messages)
    Job.objects.update(due_at=now() - timedelta(minutes=1))
    return [message.message_id for message in messages]


def fetched(broker):
    found = []
    while batch := broker.transport.fetch("q", 500):
        found += [parcel_id for parcel_id, _ in batch]
    return found


def move(old, new, **arguments):
    return relocating.relocate(old.make().transport, new.broker, name="old", **arguments)


def test_what_waits_moves_with_a_new_number_and_in_its_order(sides, soon):
    old, new = sides
    ids = enqueue(old.broker, 700)
    for position, job in enumerate(ids):
        Job.objects.filter(pk=job).update(due_at=now() - timedelta(seconds=2000 - position))
    told = []

    found = move(old, new, tell=lambda done, total: told.append((done, total)))

    assert (found.moved, found.unverified, found.held, found.is_finished) == (700, 0, 0, True)
    assert told[:2] == [(500, 700), (700, 700)]
    assert fetched(old.broker) == []
    assert fetched(new.broker) == [f"{job}:2" for job in ids]
    assert set(Job.objects.values_list("in_broker", flat=True)) == {True}
    assert AuditEntry.objects.get().verb == "migrate broker"
    assert not Lease.objects.filter(role=RELOCATION).exists()


def test_what_is_scheduled_stays_in_the_ledger(sides, soon):
    old, new = sides
    enqueue(old.broker, 3)
    Job.objects.update(state=JobState.SCHEDULED, due_at=now() + timedelta(hours=1))

    assert move(old, new).moved == 0

    assert set(Job.objects.values_list("state", "dispatch")) == {(JobState.SCHEDULED, 1)}


def test_a_move_that_was_interrupted_before_a_push_is_carried_on(sides, soon, monkeypatch):
    old, new = sides
    ids = enqueue(old.broker, 5)
    push = new.broker.transport.push
    with monkeypatch.context() as outage:
        outage.setattr(new.broker.transport, "push", lambda parcels: _away())
        with pytest.raises(BrokerUnavailable):
            move(old, new)
    assert new.broker.transport.push == push
    assert leases.is_held(RELOCATION)
    Job.objects.update(due_at=now() - timedelta(minutes=1))

    assert move(old, new).is_finished

    held = sorted(parcel_id.split(":")[0] for parcel_id in fetched(new.broker))
    assert held == sorted(ids)
    assert fetched(old.broker) == []


def _away():
    raise BrokerUnavailable("away")


def test_what_a_dead_worker_of_the_old_server_held_is_taken_over(sides, soon):
    old, new = sides
    enqueue(old.broker, 4)
    dead = old.make()
    dead.transport.heartbeat()
    assert len(dead.transport.fetch("q", 2)) == 2
    old.broker.transport.declare_dead(dead.transport.worker_id)

    assert move(old, new).is_finished

    assert len(fetched(new.broker)) == 4


def test_it_does_not_end_while_a_worker_of_the_old_server_is_alive(sides, soon):
    old, new = sides
    enqueue(old.broker, 4)
    alive = old.make()
    alive.transport.heartbeat()
    alive.transport.fetch("q", 1)

    found = move(old, new, patience=0.2)

    assert (found.moved, found.held, found.workers, found.is_finished) == (3, 1, 1, False)
    assert leases.is_held(RELOCATION)
    with pytest.raises(relocating.AnotherRelocation, match="another server"):
        relocating.relocate(alive.transport, new.broker, name="a third", patience=0)


def test_a_look_changes_nothing(sides):
    old, _ = sides
    enqueue(old.broker, 6)

    found = relocating.preview(old.make().transport)

    assert (found.moved, found.held) == (6, 0)
    assert set(Job.objects.values_list("dispatch", flat=True)) == {1}
    assert len(fetched(old.broker)) == 6


def test_it_needs_its_permission(sides):
    old, new = sides

    with pytest.raises(NotPermitted):
        move(old, new, by=make_user("nobody"))


def test_jobs_move_while_workers_of_both_servers_run_and_each_runs_once(sides):
    old, new = sides
    ran, lock = [], threading.Lock()

    def work(number):
        with lock:
            ran.append(number)
        time.sleep(0.02)

    actors = [
        dramatiq.actor(work, queue_name="q", broker=side.broker, actor_name="work")
        for side in sides
    ]
    old.broker.enqueue_many([actors[0].message(number) for number in range(400)])
    workers = [dramatiq.Worker(old.broker, worker_threads=2, worker_timeout=100)]
    workers[0].start()
    wait_until(lambda: len(ran) > 10)
    found = []

    def relocate():
        from django.db import connection

        found.append(move(old, new))
        connection.close()

    moving = threading.Thread(target=relocate)
    moving.start()
    try:
        wait_until(lambda: old.broker.controls.must_claim)
        time.sleep(3.0)  # as long as the guide says
        workers.append(dramatiq.Worker(new.broker, worker_threads=2, worker_timeout=100))
        workers[1].start()
        # Somebody still has the old settings.
        actors[0].send(400)
        time.sleep(1.0)  # both work
        workers[0].stop(timeout=5_000)
        old.broker.transport.declare_dead(old.broker.transport.worker_id)
        wait_until(lambda: completed() == 401, 40)
        moving.join(30)
    finally:
        for worker in workers:
            worker.stop(timeout=5_000)
    assert found
    assert found[0].is_finished
    assert sorted(ran) == list(range(401))
    assert Attempt.objects.count() == 401


def test_two_copies_in_two_servers_start_one_job(sides):
    old, new = sides
    ran = []

    def work(number):
        ran.append(number)

    actors = [
        dramatiq.actor(work, queue_name="q", broker=side.broker, actor_name="work")
        for side in sides
    ]
    leases.acquire(RELOCATION, "somebody", timedelta(minutes=1))
    actors[0].send(1)
    again = ledger.rescue(Job.objects.values_list("id", "dispatch"), [JobState.WAITING])
    new.broker.push(again)
    workers = [dramatiq.Worker(side.broker, worker_threads=1, worker_timeout=100) for side in sides]
    for worker in workers:
        worker.start()
    try:
        wait_until(lambda: completed() == 1)
        wait_until(lambda: not any(side.broker.hand("q").held for side in sides))
        wait_until(lambda: old.broker.transport.size("q") == 0)
    finally:
        for worker in workers:
            worker.stop(timeout=5_000)
    assert ran == [1]


def test_what_was_fetched_while_jobs_moved_is_claimed_also_afterwards(redis_url):
    leases.acquire(RELOCATION, "somebody", timedelta(minutes=1))
    process = Process(RedisBroker(url=redis_url, namespace="here"), ["q"])
    process.broker.enqueue_many(process.broker.get_actor("q").message() for _ in range(2))
    try:
        first = process.start()
        second = Job.objects.exclude(pk=first[0]).get()
        # It has come to another server meanwhile, under its next number.
        ledger.rescue([(second.pk, second.dispatch)], [JobState.WAITING])
        leases.release(RELOCATION, "somebody")
        process.beat()
        process.finish("succeed")

        assert not process.broker.controls.must_claim
        assert process.start() is None
    finally:
        process.close()


def test_while_jobs_move_no_dispatcher_says_what_is_missing(broker):
    enqueue(broker, 1)
    broker.transport.purge("q")
    leases.acquire(RELOCATION, "somebody", timedelta(minutes=1))

    assert dispatcher.confirm(broker) == dispatcher.redispatch(broker) == 0

    leases.release(RELOCATION, "somebody")
    assert dispatcher.confirm(broker) + dispatcher.redispatch(broker) == 1


@pytest.mark.rabbitmq
def test_between_two_rabbitmq_servers_nothing_has_to_be_moved(rabbitmq_url):
    server = providers.RabbitMQServer(rabbitmq_url)
    try:
        with pytest.raises(ConfigurationError, match="change RABBITMQ_URL"):
            relocating.relocate(
                server.make_broker().transport, server.make_broker(), name="x", patience=0
            )
    finally:
        server.close()


# --- The command ------------------------------------------------------------------------
def test_the_command_moves_and_says_how_far_it_came(broker, redis_url, soon):
    old = RedisBroker(url=redis_url, namespace="elsewhere")
    enqueue(old, 3)
    old.close()
    arguments = ["migrate-broker", "--from", redis_url, "--from-namespace", "elsewhere"]

    looked, moved = io.StringIO(), io.StringIO()
    call_command("queueadmin", *arguments, "--dry-run", "--format", "json", stdout=looked)
    call_command("queueadmin", *arguments, "--format", "json", stdout=moved)

    assert json.loads(looked.getvalue())[0]["moved"] == 3
    (row,) = json.loads(moved.getvalue())
    assert (row["moved"], row["unverified"], row["is_finished"]) == (3, 0, True)
    assert len(fetched(broker)) == 3


def test_the_command_says_what_is_wrong_with_an_address(broker):
    with pytest.raises(CommandError, match=r"begins with 'http'.*redis://"):
        call_command("queueadmin", "migrate-broker", "--from", "http://x")


def test_the_command_says_that_a_server_is_away(broker, soon):
    enqueue(broker, 1)

    with pytest.raises(CommandError, match="does not answer"):
        call_command("queueadmin", "migrate-broker", "--from", "redis://127.0.0.1:1/0", "--dry-run")


def test_no_password_is_kept_in_the_audit(broker, soon, redis_url):
    enqueue(broker, 1)

    with pytest.raises(CommandError):
        call_command("queueadmin", "migrate-broker", "--from", "redis://:secret@127.0.0.1:1/0")

    entry = AuditEntry.objects.get()
    assert "secret" not in entry.target_id
    assert "redis://127.0.0.1:1/0" in entry.target_id
