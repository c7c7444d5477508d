"""What RabbitMQ does to messages and connections, and what becomes of the jobs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from struct import pack

import amqp
import dramatiq
import pytest
from django.db import OperationalError, connection, transaction

from queueadmin import dispatcher, ledger
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.clock import now
from queueadmin.ledger import holdings
from queueadmin.models import Attempt, DeadLetter, Holding, Job
from queueadmin.states import DeathCause, JobState

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.rabbitmq,
    pytest.mark.timeout(60),
]


@pytest.fixture
def provider():
    return "rabbitmq"


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def completed():
    return Job.objects.filter(state=JobState.COMPLETED).count()


def overdue():
    Job.objects.filter(state=JobState.WAITING).update(due_at=now() - timedelta(minutes=1))


def ids(fetched):
    return [parcel_id for parcel_id, _ in fetched]


def cut(line):
    """Break a connection as the network would: neither side says good-bye."""
    # The server may have ended it already, after an earlier cut that nobody here has met yet.
    with suppress(OSError):
        line._connection.transport.sock.shutdown(2)


@pytest.fixture
def work(broker):
    """An actor that notes what it ran, and the list of it."""

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        work.ran.append(number)

    work.ran = []
    return work


# --- Copies ---------------------------------------------------------------------------
def test_a_message_that_was_pushed_twice_is_held_by_one_worker(broker, make_broker, work):
    message = work.send(1)
    broker.transport.push(ledger.parcels_of(Job.objects.all()))
    other = make_broker()

    assert ids(broker.transport.fetch("q", 1)) == [f"{message.message_id}:1"]
    assert other.transport.fetch("q", 9) == []
    assert broker.transport.size("q") == 1


def test_two_copies_in_one_fetch_are_one_message(broker, work):
    message = work.send(1)
    broker.transport.push(ledger.parcels_of(Job.objects.all()))

    assert ids(broker.transport.fetch("q", 9)) == [f"{message.message_id}:1"]


def test_a_copy_of_a_job_that_has_ended_is_dropped(broker, work):
    work.send(1)
    Job.objects.update(state=JobState.COMPLETED)

    assert broker.transport.fetch("q", 9) == []
    assert broker.transport.size("q") == 0


def test_a_copy_with_an_old_number_is_dropped_and_the_new_one_runs(broker, start_worker, work):
    work.send(1)
    (again,) = ledger.rescue(Job.objects.values_list("id", "dispatch"))
    broker.push([again])
    start_worker()

    wait_until(lambda: completed() == 1)
    wait_until(lambda: broker.transport.size("q") == 0)
    assert work.ran == [1]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
@pytest.mark.parametrize("is_withdrawn", [True, False])
def test_of_a_withdrawal_and_a_fetch_at_the_same_moment_one_wins(broker, work, is_withdrawn):
    work.send(1)
    parcels = ledger.parcels_of(Job.objects.all())

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert broker.transport.withdraw(parcels) == {parcels[0].id}
            fetching = pool.submit(broker.transport.fetch, "q", 1)
            time.sleep(0.5)  # by then it waits for the row
            assert not fetching.done()
            transaction.set_rollback(not is_withdrawn)
        fetched = fetching.result()

    assert ids(fetched) == ([] if is_withdrawn else [parcels[0].id])


def test_what_a_worker_holds_is_not_withdrawn(broker, work):
    work.send(1)
    broker.transport.fetch("q", 1)

    assert broker.transport.withdraw(ledger.parcels_of(Job.objects.all())) == set()


def test_a_claim_of_a_number_that_was_raised_meanwhile_is_void(broker, work, monkeypatch):
    """The worst order: the row is free and the ledger has moved on."""
    message = work.send(1)
    ledger.rescue([(message.message_id, 1)])

    copy = holdings.Copy(message.message_id, 1, f"{message.message_id}:1")
    assert holdings.take("q", [copy], worker="w") == set()
    assert not Holding.objects.exists()


# --- Hostile messages -------------------------------------------------------------------
HEADERS = [
    {"queueadmin-id": 7},
    {"queueadmin-id": "x"},
    {"queueadmin-id": "\ud800:1"},
    {"queueadmin-id": "a" * 300 + ":1"},
    {"queueadmin-id": "nobody:1"},
    {"queueadmin-id": {"a": [1, Decimal("1.5"), None]}},
    {},
]


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_any_headers_are_quarantined_and_hold_nobody_up(
    broker, queue_server, start_worker, work, headers
):
    queue_server.send("q", amqp.Message(b"\x00\xffdata", application_headers=headers))
    work.send(1)
    worker = start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (letter.died_by, bytes(letter.raw)) == (DeathCause.UNDECODABLE, b"\x00\xffdata")
    wait_until(lambda: completed() == 1)
    wait_until(lambda: broker.transport.size("q") == 0)
    assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])


class Raw(amqp.Message):
    """A message whose properties are bytes that no client would write."""

    properties_bytes = b""

    def _serialize_properties(self):
        return self.properties_bytes


def _headers(table):
    return pack(">HI", 1 << 13, len(table)) + table


@pytest.mark.parametrize(
    "table",
    [
        b"\x01aT\x7f\xff\xff\xff\xff\xff\xff\xff",  # a date far beyond the calendar
        b"\x01aS\x00\x00\x00\x02\xff\xfe",  # a text that is no UTF-8
        b"\x02\xff\xfet\x01",  # a name that is no UTF-8
        b"\x01aD\xff\x7f\xff\xff\xff",  # 255 decimal places
    ],
)
def test_properties_that_the_client_cannot_read_do_not_break_the_connection(
    broker, queue_server, start_worker, work, table
):
    message = Raw(b"body")
    message.properties_bytes = _headers(table)
    queue_server.send("q", message)
    work.send(1)
    start_worker()

    wait_until(DeadLetter.objects.exists)
    assert bytes(DeadLetter.objects.get().raw) == b"body"
    wait_until(lambda: completed() == 1)
    wait_until(lambda: broker.transport.size("q") == 0)


def test_bytes_under_the_id_of_a_job_that_has_ended_are_kept(
    broker, queue_server, start_worker, work
):
    message = work.send(1)
    start_worker()
    wait_until(lambda: completed() == 1)
    queue_server.put("q", f"{message.message_id}:1", b"rogue")

    wait_until(DeadLetter.objects.exists)
    assert bytes(DeadLetter.objects.get().raw) == b"rogue"
    assert Job.objects.get(pk=message.message_id).state == JobState.COMPLETED


# --- Lost messages ----------------------------------------------------------------------
def test_a_purged_queue_is_noticed_and_all_that_waited_runs_once(
    broker, queue_server, start_worker, work
):
    for number in range(50):
        work.send(number)
    overdue()
    Job.objects.update(in_broker=True)
    queue_server.empty()
    start_worker()

    wait_until(lambda: completed() == 50)
    assert sorted(work.ran) == list(range(50))


def test_a_deleted_queue_is_made_again_by_the_next_push(broker, queue_server, work):
    work.send(1)
    queue_server.delete("q")

    message = work.send(2)

    assert ids(broker.transport.fetch("q", 9)) == [f"{message.message_id}:1"]


def test_a_deleted_queue_costs_no_job_of_a_worker(broker, queue_server, start_worker, work):
    start_worker()
    work.send(1)
    wait_until(lambda: completed() == 1)
    queue_server.delete("q")
    broker.transport._publisher._line.drop()
    work.send(2)

    wait_until(lambda: completed() == 2)


def test_only_the_queue_that_is_short_is_dispatched_again(broker, queue_server, work):
    @dramatiq.actor(queue_name="other", broker=broker)
    def elsewhere(): ...

    work.send(1)
    elsewhere.send()
    overdue()
    broker.transport.purge("q")

    assert dispatcher.confirm(broker) == 1
    assert set(Job.objects.values_list("queue", "dispatch", "in_broker")) == {
        ("q", 2, True),
        ("other", 1, True),
    }


def test_what_is_held_is_never_missed(broker, work):
    work.send(1)
    broker.transport.fetch("q", 1)
    overdue()
    Job.objects.update(in_broker=False)

    assert dispatcher.confirm(broker) == 0
    assert dispatcher.redispatch(broker) == 0
    assert sum(dispatcher.refill(broker)) == 0


def test_what_counts_as_missing_cannot_be_fetched_any_more(broker, work):
    """A copy turns up after all, between the look and the new number."""
    work.send(1)
    overdue()
    parcels = ledger.parcels_of(Job.objects.all())
    broker.transport.purge("q")

    assert broker.transport.missing(parcels, bar=True) == parcels
    broker.transport.push(parcels)

    assert broker.transport.fetch("q", 9) == []
    # Whoever died after the look leaves a job that the next look finds.
    assert broker.transport.missing(parcels, bar=True) == parcels


def test_a_look_that_only_counts_keeps_nothing_from_anybody(broker, work):
    work.send(1)
    overdue()
    parcels = ledger.parcels_of(Job.objects.all())
    broker.transport.purge("q")

    assert broker.transport.missing(parcels) == parcels
    broker.transport.push(parcels)

    assert len(broker.transport.fetch("q", 9)) == 1


def test_rows_of_nobodys_are_removed_after_an_hour(broker, work, time_machine):
    work.send(1)
    work.send(2)
    broker.transport.fetch("q", 1)
    broker.transport.withdraw(ledger.parcels_of(Job.objects.all()))
    assert Holding.objects.count() == 2

    time_machine.move_to(now() + timedelta(seconds=3601))

    assert holdings.tidy() == 1
    assert Holding.objects.get().worker == broker.transport.worker_id


# --- Connections ------------------------------------------------------------------------
def test_cut_connections_cost_no_job_and_no_second_run(broker, start_worker, work):
    start_worker()
    for number in range(300):
        work.send(number)
        if number % 50 == 25:
            for line in (broker.transport._publisher._line, broker.transport._line):
                if line.is_open:
                    cut(line)

    wait_until(lambda: completed() == 300, 40)
    assert sorted(work.ran) == list(range(300))
    assert Attempt.objects.count() == 300
    wait_until(lambda: not Holding.objects.exclude(worker="").exists())
    wait_until(lambda: not broker.hand("q").held)


def test_an_idle_connection_that_the_server_ended_costs_no_push(broker, work):
    work.send(1)
    cut(broker.transport._publisher._line)

    work.send(2)

    assert len(broker.transport.fetch("q", 9)) == 2


def test_an_interrupted_push_leaves_no_half_frame_behind(broker, work, monkeypatch):
    work.send(1)

    def half(channel, *args, **kwargs):
        channel.connection.transport.sock.sendall(b"\x01\x00\x01\x00\x01\x00\x00")
        raise KeyboardInterrupt  # as a time limit does, not an error

    with monkeypatch.context() as interrupt:
        interrupt.setattr(amqp.Channel, "basic_publish", half)
        with pytest.raises(KeyboardInterrupt):
            broker.transport.push(ledger.parcels_of(Job.objects.all()))
    work.send(2)

    assert len(broker.transport.fetch("q", 9)) == 2


def test_what_is_given_back_after_a_cut_is_there_again_once(broker, make_broker, work):
    message = work.send(1)
    ((parcel_id, _),) = broker.transport.fetch("q", 1)
    cut(broker.transport._line)
    other = make_broker().transport
    # The server delivers it again, and it is a copy.
    wait_until(lambda: other._run(other._ready, "q") == 1)
    assert other.fetch("q", 9) == []

    broker.transport.give_back("q", [(parcel_id, 1)])

    assert ids(other.fetch("q", 9)) == [f"{message.message_id}:1"]


def test_what_is_given_back_comes_first_again(broker, work):
    for number in range(4):
        work.send(number)
    fetched = broker.transport.fetch("q", 2)

    broker.transport.give_back("q", [(parcel_id, 1) for parcel_id in ids(fetched)])

    assert ids(broker.transport.fetch("q", 4))[:2] == ids(fetched)


def test_only_the_holder_gives_back(broker, make_broker, work):
    work.send(1)
    ((parcel_id, _),) = broker.transport.fetch("q", 1)

    make_broker().transport.give_back("q", [(parcel_id, 1)])

    assert broker.transport.in_hand("q") == {parcel_id}
    assert broker.transport.size("q") == 1


def test_a_claim_whose_answer_was_lost_is_found_and_runs_once(
    broker, start_worker, work, monkeypatch
):
    take, cuts = holdings.take, []

    def lost(*args, **kwargs):
        taken = take(*args, **kwargs)
        if taken and not cuts:
            cuts.append(taken)
            raise OperationalError("cut after the commit")
        return taken

    monkeypatch.setattr(holdings, "take", lost)
    for number in range(20):
        work.send(number)
    start_worker()

    wait_until(lambda: completed() == 20, 30)
    assert cuts
    assert sorted(work.ran) == list(range(20))


@pytest.fixture
def unpushed(broker, work):
    """A job of the ledger's that was not pushed."""
    broker._pushing_paused_until = float("inf")
    work.send(1)
    return ledger.parcels_of(Job.objects.all())


def test_a_server_that_takes_no_messages_keeps_no_request_waiting(broker, unpushed, monkeypatch):
    line = broker.transport._publisher._line
    drain = amqp.Connection.drain_events

    def alarmed(connection, timeout=None):
        line._on_blocked("low on disk")
        return drain(connection, timeout)

    broker.transport._publisher.publish((), ["q"])
    monkeypatch.setattr(amqp.Connection, "drain_events", alarmed)

    with pytest.raises(BrokerUnavailable, match="low on disk"):
        broker.transport.push(unpushed)


def test_a_message_that_the_server_refuses_is_not_pushed(broker, unpushed, monkeypatch):
    monkeypatch.setattr(amqp.Channel, "_on_basic_ack", amqp.Channel._on_basic_nack)

    with pytest.raises(BrokerUnavailable, match="refused"):
        broker.transport.push(unpushed)


def test_high_priority_is_fetched_first(broker, work):
    for priority in ("low", "normal", "high"):
        work.send_with_options(args=(1,), priority=priority)

    fetched = [data for _, data in broker.transport.fetch("q", 9)]

    assert [b'"high"' in fetched[0], b'"low"' in fetched[2]] == [True, True]


def test_a_wake_up_names_the_queue(broker, work):
    broker.transport.wait_for_push(0.01)
    work.send(1)

    assert broker.transport.wait_for_push(5) == {"q"}
    assert broker.transport.wait_for_push(0.01) == set()


# --- Workers ----------------------------------------------------------------------------
def test_a_worker_that_holds_something_and_never_said_a_word_is_dead(broker, work):
    work.send(1)
    broker.transport.fetch("q", 1)

    assert broker.transport.dead_workers(10_000) == [broker.transport.worker_id]
    broker.transport.heartbeat()
    assert broker.transport.dead_workers(10_000) == []


def test_a_slot_that_becomes_free_wakes_the_others(broker, make_broker, settings, work):
    from queueadmin.controls import Control

    control = Control(concurrency=1)
    for number in range(2):
        work.send(number)
    ((first, _),), _ = broker.transport.fetch_limited("q", 9, control, [])
    other = make_broker().transport
    other.wait_for_push(0.01)

    broker.transport.fetch_limited("q", 0, control, [first])

    assert other.wait_for_push(5) == {"q"}
    assert len(other.fetch_limited("q", 9, control, [])[0]) == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_of_two_that_want_the_last_slot_one_gets_it(broker, make_broker, work):
    from queueadmin.controls import Control

    control, transports = Control(concurrency=1), [broker.transport, make_broker().transport]
    for number in range(20):
        work.send(number)
    barrier = threading.Barrier(2)

    def fetch(transport):
        barrier.wait()
        return ids(transport.fetch_limited("q", 5, control, [])[0])

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            found = list(pool.map(fetch, transports))
            assert sum(map(len, found)) == 1
            for transport, held in zip(transports, found, strict=True):
                transport.give_back("q", [(parcel_id, 1) for parcel_id in held])
