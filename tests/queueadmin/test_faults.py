"""What servers, messages and other processes do to a worker, and what it makes of it."""

import json
import threading
import time

import dramatiq
import pytest
import redis
from django.db import OperationalError

from queueadmin import clock, dispatcher, ledger, recorder
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.exceptions import InvalidMessage
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import DeathCause, JobState, Outcome

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


def wait_until(condition, seconds=15.0):
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
    """An actor that notes what it ran, and the list of it."""

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        work.ran.append(number)

    work.ran = []
    return work


@pytest.fixture
def in_dead_hands(broker, make_broker):
    """Fetch messages as a worker that is dead afterwards."""

    def fetch(count):
        other = make_broker()
        other.transport.heartbeat()
        fetched = other.transport.fetch("q", count)
        other.close()
        broker.transport.declare_dead(other.transport.worker_id)
        return fetched

    return fetch


# --- Replies ----------------------------------------------------------------------------
@pytest.mark.every_provider
def test_what_ran_elsewhere_after_a_cut_reply_is_not_pushed_again(
    broker, make_broker, start_worker, monkeypatch
):
    failed = []

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=1)
    def fail_once():
        if not failed:
            failed.append(1)
            raise dramatiq.Retry("at once", delay=0)

    other = make_broker()
    other.transport.heartbeat()
    fetch, settle = broker.transport.fetch, broker.transport.settle
    lock, seen = threading.Lock(), []
    cut = threading.Event()

    def only_before(queue, count):
        with lock:
            return [] if seen else fetch(queue, count)

    def cut_once(done, parcels):
        with lock:
            if seen:
                cut.set()
                settle(done, parcels)
                return
            settle(done, parcels)
            seen.extend(other.transport.fetch("q", 10))
        raise BrokerUnavailable("the reply was cut")

    monkeypatch.setattr(broker.transport, "fetch", only_before)
    monkeypatch.setattr(broker.transport, "settle", cut_once)
    message = fail_once.send()
    start_worker(threads=1)
    wait_until(lambda: seen)
    # Another process runs the retry, and lets go of it.
    at = clock.now()
    ending = ledger.Ending(
        job=message.message_id,
        dispatch=2,
        state=JobState.COMPLETED,
        outcome=Outcome.COMPLETED,
        attempt=2,
        started_at=at,
        finished_at=at,
        queue="q",
        actor="fail_once",
    )
    assert ledger.commit([ending]).accepted == {message.message_id}
    other.transport.settle({"q": [seen[0][0]]}, [])
    wait_until(cut.is_set)
    wait_until(lambda: broker.transport.in_hand("q") == set())

    assert broker.transport.size("q") == 0


@pytest.mark.every_provider
def test_a_job_that_has_to_claim_its_start_is_not_shown_as_active_before(
    broker, start_worker, monkeypatch, work, in_dead_hands
):
    monkeypatch.setattr(recorder, "_ACTIVE_AFTER_SECONDS", 0.05)
    claim, mark_active = ledger.claim, ledger.mark_active
    marked, claimed = threading.Event(), []

    def mark(runs):
        mark_active(runs)
        marked.set()

    def late(*args, **kwargs):
        marked.wait(2)  # several looks of the recorder
        claimed.append(claim(*args, **kwargs))
        return claimed[-1]

    monkeypatch.setattr(ledger, "mark_active", mark)
    monkeypatch.setattr(ledger, "claim", late)
    work.send(1)
    assert len(in_dead_hands(10)) == 1
    start_worker()

    wait_until(lambda: claimed)
    wait_until(lambda: completed() == 1)
    assert claimed == [0]
    assert work.ran == [1]


# --- Messages -------------------------------------------------------------------------
@pytest.mark.every_provider
@pytest.mark.parametrize(
    "change",
    [
        {"options": {"priority": []}},
        {"options": {"retries": 1e12}},
        {"options": {"max_retries": 1e12}},
        {"message_timestamp": float("nan")},
        {"message_timestamp": -1},
        {"message_timestamp": 1e18},
    ],
)
def test_a_value_no_worker_can_use_is_quarantined(broker, queue_server, start_worker, work, change):
    message = work.send(1)
    fields = json.loads(Job.objects.get().message)
    data = json.dumps({**fields, **change}).encode()
    queue_server.replace("q", f"{message.message_id}:1", data)
    worker = start_worker()

    wait_until(DeadLetter.objects.exists)
    assert DeadLetter.objects.get().died_by == DeathCause.UNDECODABLE
    wait_until(lambda: broker.transport.size("q") == 0)
    assert broker.transport.in_hand("q") == set()
    assert all(thread.is_alive() for thread in worker.workers)
    assert work.ran == []


@pytest.mark.every_provider
def test_a_message_id_of_any_bytes_is_quarantined_and_leaves(
    broker, queue_server, start_worker, work
):
    queue_server.put("q", b"\xff\xfe:1", b"\x00")
    start_worker()

    wait_until(DeadLetter.objects.exists)
    wait_until(lambda: broker.transport.size("q") == 0)
    assert broker.transport.in_hand("q") == set()


def test_a_due_time_beyond_the_calendar_is_refused(broker, work):
    message = work.message(1).copy(options={"eta": 9e14})

    with pytest.raises(InvalidMessage, match="eta"):
        broker.enqueue(message)


def test_arguments_nested_too_deeply_are_refused(broker, work):
    nested = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(InvalidMessage, match="cannot be encoded"):
        work.send(nested)


@pytest.mark.every_provider
def test_bytes_published_by_others_do_not_end_the_wake_up_thread(
    broker, queue_server, start_worker, work
):
    work.send(0)
    start_worker()
    wait_until(lambda: completed() == 1)
    queue_server.announce(b"\xff")
    work.send(1)

    wait_until(lambda: completed() == 2)
    assert all(thread.is_alive() for thread in broker.dispatcher.threads)


@pytest.mark.every_provider
def test_what_the_ledger_does_not_know_survives_the_death_of_its_holder(
    broker, queue_server, start_worker, work, in_dead_hands
):
    message = work.message(7).copy(options={"redis_message_id": "r-1"})
    queue_server.put("q", "r-1", message.encode())
    assert len(in_dead_hands(10)) == 1
    start_worker()

    wait_until(lambda: completed() == 1)
    assert work.ran == [7]


# --- Connections ----------------------------------------------------------------------
def test_messages_whose_reply_was_cut_run_here_and_once(broker, start_worker, work, monkeypatch):
    fetch, cuts = broker.transport._fetch, []

    def cut(**arguments):
        found = fetch(**arguments)
        if found and not cuts:
            cuts.append(found)
            raise redis.ConnectionError("cut after the server had answered")
        return found

    monkeypatch.setattr(broker.transport, "_fetch", cut)
    for number in range(20):
        work.send(number)
    start_worker()

    wait_until(lambda: completed() == 20)
    assert cuts
    assert sorted(work.ran) == list(range(20))
    wait_until(lambda: broker.transport.in_hand("q") == set())


def cut_connections(client):
    """Cut those that use the test's database; others may use the server, too."""
    mine = str(client.connection_pool.connection_kwargs.get("db") or 0)
    for other in client.client_list(_type="normal"):
        if other["db"] == mine:
            client.client_kill_filter(_id=other["id"], skipme=True)


def test_lost_connections_leave_no_message_and_no_room_behind(broker, client, start_worker, work):
    start_worker()
    for number in range(300):
        work.send(number)
        if number % 100 == 50:
            cut_connections(client)

    wait_until(lambda: completed() == 300, 30)
    assert sorted(work.ran) == list(range(300))
    wait_until(lambda: broker.transport.in_hand("q") == set())
    assert broker.hand("q").outstanding == 0
    wait_until(lambda: not broker.hand("q").held)


def test_a_full_server_lets_go_of_what_is_done_and_goes_on(
    broker, client, start_worker, broker_server
):
    if not broker_server.startswith("unix://"):
        pytest.skip("the server is shared with other tests")

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=1, min_backoff=0, max_backoff=1)
    def work(number):
        if number == 0 and not failed:
            failed.append(1)
            raise dramatiq.errors.Retry(delay=0)

    failed = []
    for number in range(50):
        work.send(number)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.RedisError):
            client.set("more", "x")
        start_worker()
        wait_until(lambda: completed() >= 49)
        # The retry at once is refused by the server, and nothing waits behind it.
        wait_until(lambda: broker.transport.in_hand("q") == set())
        assert broker.heart.is_steady(0)
    finally:
        client.config_set("maxmemory", "0")
    wait_until(lambda: completed() == 50)


# --- The ledger -----------------------------------------------------------------------
@pytest.mark.every_provider
def test_a_row_that_somebody_holds_locked_does_not_hold_up_the_others(
    broker, start_worker, work, monkeypatch
):
    commit, is_locked = ledger.commit, threading.Event()
    is_locked.set()
    victim = work.send(0)

    def waiting_in_vain(endings):
        if is_locked.is_set() and any(ending.job == victim.message_id for ending in endings):
            raise OperationalError("canceling statement due to lock timeout")
        return commit(endings)

    monkeypatch.setattr(ledger, "commit", waiting_in_vain)
    for number in range(1, 20):
        work.send(number)
    start_worker()

    wait_until(lambda: completed() == 19)
    is_locked.clear()
    wait_until(lambda: completed() == 20)
    assert sorted(work.ran) == list(range(20))
    assert Attempt.objects.count() == 20


@pytest.mark.every_provider
def test_an_outcome_no_driver_can_send_is_recorded_without_its_text(
    broker, start_worker, work, monkeypatch
):
    commit = ledger.commit

    def refusing(endings):
        if any(ending.error_class == "ValueError" and ending.traceback for ending in endings):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return commit(endings)

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def fail():
        raise ValueError("x")

    monkeypatch.setattr(ledger, "commit", refusing)
    fail.send()
    start_worker()
    wait_until(DeadLetter.objects.exists)
    work.send(1)
    wait_until(lambda: completed() == 1)


# --- Duties ---------------------------------------------------------------------------
def test_a_flawed_duty_ends_neither_the_dispatcher_nor_the_other_duties(
    broker, start_worker, work, monkeypatch
):
    def flawed(broker):
        calls.append(1)
        raise KeyError("flaw")

    calls = []
    monkeypatch.setattr(dispatcher.Dispatcher, "duties", [(0.0, flawed), (0.0, dispatcher.promote)])
    work.send_with_options(args=(1,), delay=50)
    start_worker()

    wait_until(lambda: completed() == 1)
    assert calls
    assert all(thread.is_alive() for thread in broker.dispatcher.threads)


def test_the_heart_beats_on_a_full_server_only_while_it_is_reachable(broker, monkeypatch):
    def away(worker_id=""):
        raise BrokerUnavailable("away")

    heart = dispatcher.Heart(broker)
    heart.beat()
    assert heart.is_steady(0)
    monkeypatch.setattr(broker.transport, "heartbeat", away)
    heart.beat()
    assert not heart.is_steady(0)
