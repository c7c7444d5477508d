"""A worker that is told to stop gives back at once what it has not started."""

import threading
import time

import dramatiq
import pytest

from queueadmin import dispatcher
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.consumer import split
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import DeathCause, JobState

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.every_provider,
    pytest.mark.timeout(60),
]

OTHERS = 9


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    # Dramatiq starts a consumer over after three seconds.
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)


class Site:
    """A worker whose only thread runs a job for as long as the test wants."""

    def __init__(self, broker, start_worker):
        self.broker = broker
        self.started: list[int] = []
        self.runs, self.may_end = threading.Event(), threading.Event()

        @dramatiq.actor(queue_name="q", broker=broker)
        def work(number):
            self.started.append(number)
            if number == 0:
                self.runs.set()
                self.may_end.wait(30)

        self.work = work
        # It takes its jobs for short ones, and holds many.
        broker._mean_ms["q"] = 0.5
        self.worker = start_worker(threads=1)
        self._stopper = threading.Thread(target=self.worker.stop, args=(30_000,))

    def occupy(self):
        self.work.send(0)
        assert self.runs.wait(10)

    def send_others(self):
        """Send more than it can start; return the ids that the broker gives the messages."""
        messages = [self.work.message(number) for number in range(1, OTHERS + 1)]
        self.broker.enqueue_many(messages)
        return [f"{message.message_id}:1" for message in messages]

    def fill(self):
        """Let it hold more than it can start."""
        sent = self.send_others()
        wait_until(lambda: self.broker.hand("q").outstanding == OTHERS + 1)
        return sent

    def stop(self):
        self._stopper.start()
        wait_until(lambda: self.broker.work_queue.is_closed)

    def end(self):
        self.may_end.set()
        self._stopper.join(30)
        assert not self._stopper.is_alive()


@pytest.fixture
def site(broker, start_worker):
    site = Site(broker, start_worker)
    yield site
    site.may_end.set()


@pytest.fixture
def other(make_broker):
    """Another process."""
    other = make_broker()
    other.transport.heartbeat()
    return other


def wait_for_others(broker):
    found = []

    def has_all():
        found.extend(broker.transport.fetch("q", 100))
        return len(found) >= OTHERS

    wait_until(has_all)
    assert len(found) == OTHERS
    return [parcel_id for parcel_id, _ in found]


def test_what_is_not_started_is_there_for_others_while_a_job_still_runs(site, other):
    site.occupy()
    sent = site.fill()
    site.stop()

    # Under the dispatch that they had, and in their order: RabbitMQ takes them back one by one,
    # and others may fetch in between.
    found = wait_for_others(other)
    assert sorted(found) == sorted(sent)
    assert found == sent or not other.transport.is_exact
    assert not Attempt.objects.exists()
    site.end()
    assert site.started == [0]
    assert Job.objects.filter(state=JobState.COMPLETED).count() == Attempt.objects.count() == 1


def test_what_a_fetch_under_way_brings_after_the_signal_goes_back_too(site, other, monkeypatch):
    fetch = site.broker.transport.fetch
    has_fetched, may_return = threading.Event(), threading.Event()

    def slow(queue, limit):
        found = fetch(queue, limit)
        if found and site.started:
            has_fetched.set()
            assert may_return.wait(20)
        return found

    # Before the first job, or the others could arrive by a fetch that had begun before.
    monkeypatch.setattr(site.broker.transport, "fetch", slow)
    site.occupy()
    sent = site.send_others()
    assert has_fetched.wait(10)
    site.stop()
    may_return.set()

    assert sorted(wait_for_others(other)) == sorted(sent)
    site.end()
    assert site.started == [0]


def test_what_a_fetch_under_way_loses_with_its_reply_goes_back_too(site, other, monkeypatch):
    fetch = site.broker.transport.fetch
    has_fetched, may_return = threading.Event(), threading.Event()

    def cut(queue, limit):
        found = fetch(queue, limit)
        if found and site.started:
            has_fetched.set()
            assert may_return.wait(20)
            raise BrokerUnavailable("cut")
        return found

    # Before the first job, or the others could arrive by a fetch that had begun before.
    monkeypatch.setattr(site.broker.transport, "fetch", cut)
    site.occupy()
    sent = site.send_others()
    assert has_fetched.wait(10)
    site.stop()
    may_return.set()

    assert sorted(wait_for_others(other)) == sorted(sent)
    site.end()
    assert site.started == [0]


@pytest.mark.parametrize("is_executed", [False, True])
def test_a_broker_that_is_away_for_a_moment_gets_everything_back_once(
    site, other, monkeypatch, is_executed
):
    give_back, failures = site.broker.transport.give_back, []

    def failing(queue, messages, worker_id=""):
        if len(failures) < 2:
            failures.append(1)
            if is_executed:
                give_back(queue, messages, worker_id)
            raise BrokerUnavailable("away")
        give_back(queue, messages, worker_id)

    site.occupy()
    sent = site.fill()
    monkeypatch.setattr(site.broker.transport, "give_back", failing)
    site.stop()

    assert sorted(wait_for_others(other)) == sorted(sent)
    wait_until(lambda: len(failures) == 2)
    site.end()
    assert site.started == [0]
    # Nothing of it came back a second time.
    assert other.transport.fetch("q", 100) == []


def test_a_broker_that_stays_away_holds_up_no_shutdown_and_loses_nothing(site, other, monkeypatch):
    def away(queue, messages, worker_id=""):
        raise BrokerUnavailable("away")

    site.occupy()
    sent = site.fill()
    monkeypatch.setattr(site.broker.transport, "give_back", away)
    site.stop()
    site.end()

    assert other.transport.fetch("q", 100) == []
    other.transport.declare_dead(site.broker.transport.worker_id)
    dispatcher.rescue(other)
    jobs = [split(parcel_id)[0] for parcel_id in wait_for_others(other)]
    assert sorted(jobs) == sorted(split(parcel_id)[0] for parcel_id in sent)
    assert site.started == [0]
    assert not Job.objects.filter(crashes__gt=0).exists()


def test_a_consumer_that_is_started_over_after_the_signal_fetches_nothing(site, other, monkeypatch):
    site.occupy()
    site.stop()
    failed, in_hand = threading.Event(), site.broker.transport.in_hand

    def fail(queue):
        monkeypatch.setattr(site.broker.transport, "in_hand", in_hand)
        failed.set()
        raise BrokerUnavailable("away")

    monkeypatch.setattr(site.broker.transport, "in_hand", fail)
    for consumer in list(site.broker.transport_consumers):
        consumer._strays_at = 0.0
        consumer.wake.set()
    assert failed.wait(10)
    sent = site.send_others()
    time.sleep(0.5)  # several looks of the consumer that follows

    assert wait_for_others(other) == sent
    site.end()


def test_an_idle_worker_waits_for_nothing_when_it_stops(broker, start_worker, monkeypatch):
    monkeypatch.setattr("queueadmin.consumer._IDLE_SECONDS", 600.0)

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    # Before it starts: of what is pushed before it listens, it is not told.
    work.send()
    worker = start_worker(timeout_ms=600_000)
    broker.join("q", timeout=10_000)
    stopper = threading.Thread(target=worker.stop, daemon=True)
    stopper.start()
    stopper.join(20)

    assert not stopper.is_alive()


def test_no_thread_outlives_its_worker_and_its_broker(broker, start_worker, caplog):
    @dramatiq.actor(queue_name="q", broker=broker, time_limit=1_000, max_retries=0)
    def work():
        running.set()
        while True:
            time.sleep(0.01)

    running = threading.Event()
    before = set(threading.enumerate())
    for _ in range(2):
        running.clear()
        work.send()
        worker = start_worker()
        assert running.wait(10)
        # The job's limit is kept while the worker waits for what runs.
        worker.stop()
        worker.stop()
    broker.close()
    wait_until(lambda: set(threading.enumerate()) <= before)

    deaths = DeadLetter.objects.values_list("died_by", flat=True)
    assert list(deaths) == [DeathCause.TIME_LIMIT] * 2
    assert "Unexpected failure" not in caplog.text
