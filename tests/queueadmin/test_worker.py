"""Real worker threads on a real server: from the fetch to the recorded outcome."""

import json
import threading
import time
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, TimeLimitExceeded
from dramatiq.results import ResultFailure

from queueadmin import dispatcher, ledger, recorder
from queueadmin.exceptions import PermanentError
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import DeadLetterStatus, DeathCause, JobState, Outcome

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_job_is_completed_with_its_attempt_and_leaves_the_broker(broker, start_worker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        return number * 2

    message = work.send(21)
    start_worker()

    assert message.get_result(block=True) == 42
    job = Job.objects.get()
    assert (job.state, job.attempts, job.error_class) == (JobState.COMPLETED, 1, "")
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.number, attempt.job_id) == (Outcome.COMPLETED, 1, job.pk)
    wait_until(lambda: broker.transport.size("q") == 0)


def test_a_failing_job_is_retried_and_buried_in_one_dead_letter(broker, start_worker):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=2, min_backoff=1, max_backoff=1)
    def fail():
        raise ValueError("no \x00 <script>good</script>")

    message = fail.send()
    start_worker()

    with pytest.raises(ResultFailure, match="good"):
        message.get_result(block=True)
    job = Job.objects.get()
    assert (job.state, job.attempts, job.max_attempts) == (JobState.DEAD, 3, 3)
    assert [attempt.outcome for attempt in job.attempt_set.order_by("number")] == [
        Outcome.RETRYING,
        Outcome.RETRYING,
        Outcome.DEAD,
    ]
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.ATTEMPTS_EXHAUSTED
    assert letter.status == DeadLetterStatus.PENDING
    assert "fail" in letter.traceback
    wait_until(lambda: broker.transport.size("q") == 0)


class _Unreadable(Exception):
    def __str__(self):
        return self.response.text


def test_an_error_that_cannot_say_what_it_is_counts_like_any_other(broker, start_worker):
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def fail():
        ran.append(1)
        raise _Unreadable

    fail.send()
    worker = start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.attempts) == (DeathCause.ATTEMPTS_EXHAUSTED, 2)
    assert letter.error_class == "_Unreadable"
    assert "AttributeError" in letter.error_message
    assert len(ran) == 2
    wait_until(lambda: not broker.recorder.running)
    assert all(thread.is_alive() for thread in worker.workers)


def test_a_retry_when_that_fails_leaves_it_to_the_number_of_attempts(broker, start_worker):
    @dramatiq.actor(
        queue_name="q",
        broker=broker,
        max_retries=1,
        min_backoff=1,
        max_backoff=1,
        retry_when=lambda retries, exception: exception.response.status_code >= 500,
    )
    def fail():
        raise ConnectionError("without a response")

    fail.send()
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.attempts) == (DeathCause.ATTEMPTS_EXHAUSTED, 2)
    assert list(Attempt.objects.order_by("number").values_list("outcome", flat=True)) == [
        Outcome.RETRYING,
        Outcome.DEAD,
    ]


def test_a_delay_that_cannot_be_told_is_the_default(broker, start_worker):
    @dramatiq.actor(queue_name="q", broker=broker, min_backoff="15s")
    def fail():
        raise ValueError("as always")

    fail.send()
    start_worker()

    wait_until(Attempt.objects.exists)
    assert Attempt.objects.get().outcome == Outcome.RETRYING
    assert Job.objects.get().state == JobState.RETRYING


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), -5, 1e300])
def test_a_delay_of_any_number_is_a_delay(broker, start_worker, delay):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=1)
    def fail():
        raise dramatiq.Retry("later", delay=delay)

    fail.send()
    start_worker()

    wait_until(Attempt.objects.exists)
    assert Attempt.objects.order_by("number")[0].outcome == Outcome.RETRYING


def test_a_permanent_error_is_not_retried(broker, start_worker):
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def refuse():
        raise PermanentError("131026: not on WhatsApp")

    refuse.send()
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.attempts) == (DeathCause.REJECTED, 1)
    assert letter.error_message == "131026: not on WhatsApp"


def test_the_time_limit_of_the_policy_interrupts_a_job(broker, start_worker):
    @dramatiq.actor(queue_name="q", broker=broker, time_limit=200, max_retries=0)
    def hang():
        while True:
            time.sleep(0.01)

    hang.send()
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.TIME_LIMIT
    assert letter.error_class == TimeLimitExceeded.__name__


def test_a_message_too_old_is_a_dead_letter_and_never_ran(broker, start_worker):
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker, max_age=1)
    def late():
        ran.append(1)

    late.send()
    time.sleep(0.01)
    start_worker()

    wait_until(DeadLetter.objects.exists)
    assert DeadLetter.objects.get().died_by == DeathCause.EXPIRED
    assert not ran
    assert not Attempt.objects.exists()


def test_a_long_job_is_shown_as_active(broker, start_worker):
    release = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def slow():
        release.wait(20)

    slow.send()
    start_worker()

    wait_until(Job.objects.filter(state=JobState.ACTIVE).exists)
    assert Job.objects.get().worker
    release.set()
    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00not json",
        b"[]",
        b"{}",
        b'{"queue_name": 1}',
        b'"text"',
        b"[" * 5000,
    ],
)
def test_bytes_that_are_no_message_become_a_dead_letter_and_hold_nobody_up(
    broker, queue_server, start_worker, data
):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    queue_server.put("q", "rogue", data)
    good = [work.send() for _ in range(3)]
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.UNDECODABLE
    assert bytes(letter.raw) == data
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == len(good))
    wait_until(lambda: broker.transport.size("q") == 0)


@pytest.mark.parametrize(
    "options", [{"retries": "x"}, {"time_limit": []}, {"throws": 1}, {"max_age": "old"}]
)
def test_a_hostile_message_in_the_broker_kills_no_thread(
    broker, queue_server, start_worker, options
):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    message = work.send()
    fields = json.loads(Job.objects.get().message)
    fields["options"] = options
    queue_server.replace("q", f"{message.message_id}:1", json.dumps(fields).encode())
    worker = start_worker()

    wait_until(DeadLetter.objects.exists)
    assert DeadLetter.objects.get().died_by == DeathCause.UNDECODABLE
    work.send()
    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)
    assert all(thread.is_alive() for thread in worker.workers)


def test_an_unknown_actor_is_parked_for_a_rolling_deploy(broker, start_worker):
    _send_unknown(broker)
    start_worker()

    wait_until(Job.objects.filter(state=JobState.SCHEDULED).exists)
    assert not DeadLetter.objects.exists()
    job = Job.objects.get()
    assert job.attempts == 0
    assert job.parked_at is not None
    assert "'from_the_future'" in job.error_message


def test_a_job_made_long_ago_is_parked_like_a_new_one(broker, start_worker):
    # As one that was scheduled for today has been.
    _send_unknown(broker, message_timestamp=1_500_000_000_000)
    start_worker()

    wait_until(Job.objects.filter(state=JobState.SCHEDULED).exists)
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("requeues", [0, 1])
def test_a_parked_job_remembers_since_when_and_is_a_dead_letter_in_the_end(
    broker, start_worker, monkeypatch, requeues
):
    monkeypatch.setattr(recorder, "_PARK", timedelta(milliseconds=100))
    _send_unknown(broker)
    start_worker()
    wait_until(Job.objects.filter(parked_at__isnull=False).exists)
    first = Job.objects.get()
    wait_until(Job.objects.filter(dispatch__gt=first.dispatch + 1).exists)
    assert Job.objects.get().parked_at == first.parked_at
    assert not DeadLetter.objects.exists()

    long_ago = first.parked_at - timedelta(hours=1)
    Job.objects.update(parked_at=long_ago, requeues=requeues)

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.UNKNOWN_ACTOR
    assert Job.objects.get().parked_at is None


def test_a_parked_job_whose_actor_comes_runs_without_knowing_it(broker, start_worker, monkeypatch):
    monkeypatch.setattr(recorder, "_PARK", timedelta(milliseconds=100))
    _send_unknown(broker)
    start_worker()
    wait_until(Job.objects.filter(parked_at__isnull=False).exists)
    options = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def from_the_future():
        options.append(CurrentMessage.get_current_message().options)

    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)
    job = Job.objects.get()
    assert (job.parked_at, job.attempts, job.error_class) == (None, 1, "")
    assert not [name for name in options[0] if "parked" in name]


def test_an_unknown_actor_is_a_dead_letter_after_the_grace_time(broker, start_worker, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "UNKNOWN_ACTOR_GRACE": 0}
    _send_unknown(broker)
    start_worker()

    wait_until(DeadLetter.objects.exists)
    letter = DeadLetter.objects.get()
    assert letter.died_by == DeathCause.UNKNOWN_ACTOR
    assert "'from_the_future'" in letter.error_message


def _send_unknown(broker, **fields):
    broker.declare_queue("q")
    broker.enqueue(
        dramatiq.Message(
            queue_name="q", actor_name="from_the_future", args=(), kwargs={}, options={}, **fields
        )
    )


def test_a_message_of_plain_dramatiq_is_adopted_and_runs_once(broker, queue_server, start_worker):
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    message = work.message(7).copy(options={"redis_message_id": "r-1"})
    queue_server.put("q", "r-1", message.encode())
    start_worker()

    wait_until(Job.objects.filter(pk=message.message_id, state=JobState.COMPLETED).exists)
    assert ran == [7]


def test_what_a_dead_worker_held_runs_elsewhere(broker, start_worker):
    done = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        done.append(number)

    messages = [work.send(number) for number in range(20)]
    dead, broker.transport.worker_id = broker.transport.worker_id, "gone:1:x"
    broker.transport.heartbeat()
    assert len(broker.transport.fetch("q", 100)) == 20
    broker.transport.worker_id = dead
    broker.transport.declare_dead("gone:1:x")
    start_worker()

    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == len(messages))
    assert sorted(done) == list(range(20))
    # What is dispatched again may have run before it is forgotten that somebody held it.
    wait_until(lambda: broker.transport.held_by("gone:1:x") == {})


@pytest.fixture
def start_listening_worker(broker, start_worker, monkeypatch):
    """Start a worker whose consumers look only when they are woken, and wait until it listens.

    What is pushed before that, nobody is woken for.
    """

    def start(**options):
        listens, wait_for_push = threading.Event(), broker.transport.wait_for_push

        def wait(timeout):
            pushed = wait_for_push(timeout)
            listens.set()
            return pushed

        monkeypatch.setattr(broker.transport, "wait_for_push", wait)
        worker = start_worker(**options)
        assert listens.wait(20)
        wait_until(
            lambda: "q" in {one.queue_name for one in list(broker.transport_consumers)}, seconds=20
        )
        # Longer than any look of its own, so that only a wake-up can explain the start.
        for consumer in list(broker.transport_consumers):
            consumer._timeout = 60
        time.sleep(0.3)  # until the looks that are under way are over
        return worker

    yield start
    for consumer in list(broker.transport_consumers):
        consumer._timeout = 0.1
        consumer.wake.set()


def test_an_idle_worker_is_woken_by_the_push(broker, start_listening_worker):
    started = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work():
        started.append(time.monotonic())

    start_listening_worker()
    work.send()

    wait_until(lambda: started, seconds=20)


def test_at_shutdown_what_runs_is_finished_and_the_rest_given_back(broker, start_worker):
    started, release = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def slow():
        started.set()
        release.wait(20)

    for _ in range(10):
        slow.send()
    worker = start_worker(threads=1)
    assert started.wait(10)
    stopper = threading.Thread(target=worker.stop, kwargs={"timeout": 20_000})
    stopper.start()
    wait_until(lambda: broker.work_queue.is_closed)
    release.set()
    stopper.join()

    states = list(Job.objects.values_list("state", flat=True))
    assert states.count(JobState.COMPLETED) == 1
    assert states.count(JobState.WAITING) == 9
    assert len(broker.transport.fetch("q", 100)) == 9
    assert not DeadLetter.objects.exists()


def test_outcomes_wait_while_the_broker_is_away_and_nothing_runs_twice(
    broker, start_worker, monkeypatch
):
    from queueadmin.brokers.transport import BrokerUnavailable

    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    settle, failures = broker.transport.settle, []

    def failing(done, parcels):
        if len(failures) < 2:
            failures.append(1)
            raise BrokerUnavailable("cut")
        settle(done, parcels)

    monkeypatch.setattr(broker.transport, "settle", failing)
    for number in range(5):
        work.send(number)
    start_worker()

    wait_until(lambda: broker.transport.size("q") == 0)
    assert sorted(ran) == list(range(5))
    assert Job.objects.filter(state=JobState.COMPLETED).count() == 5


def test_a_consumer_that_waits_for_the_recorder_is_woken_each_time(
    broker, start_listening_worker, monkeypatch
):
    # Whoever asks while anything waits is held back.
    monkeypatch.setattr(recorder, "_MOST_WAITING", 1)
    monkeypatch.setattr(recorder, "_FEW_WAITING", 1)

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number): ...

    start_listening_worker(threads=4)
    broker.enqueue_many(work.message(number) for number in range(1_500))

    # Nobody goes on by its own time-out, which is twice as long.
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 1_500, seconds=30)
    assert Attempt.objects.count() == 1_500


def test_a_recorder_that_is_behind_lets_nothing_be_fetched_until_it_has_caught_up(
    broker, start_worker, monkeypatch
):
    monkeypatch.setattr(recorder, "_MOST_WAITING", 10)
    monkeypatch.setattr(recorder, "_FEW_WAITING", 5)
    is_open = threading.Event()
    commit = ledger.commit

    def late(endings):
        assert is_open.wait(20)
        return commit(endings)

    monkeypatch.setattr(ledger, "commit", late)
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)

    # So many that one process would fetch them in several goes.
    broker.enqueue_many(work.message(number) for number in range(2_000))
    start_worker()

    wait_until(lambda: len(ran) > 10)
    time.sleep(1.5)  # in which it would run all of them
    held = len(ran)
    is_open.set()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 2_000, seconds=25)

    # What was fetched before the tenth had ended, and no more.
    assert held < 1_000
    assert sorted(ran) == list(range(2_000))


def test_outcomes_wait_while_the_ledger_is_away(broker, start_worker, monkeypatch):
    from django.db import OperationalError

    from queueadmin import ledger

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    commit, failures = ledger.commit, []

    def failing(endings):
        if len(failures) < 2:
            failures.append(1)
            raise OperationalError("gone")
        return commit(endings)

    monkeypatch.setattr(ledger, "commit", failing)
    work.send()
    start_worker()

    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)
    assert len(failures) == 2
    assert Attempt.objects.count() == 1


def test_one_outcome_that_the_ledger_refuses_does_not_stop_the_others(
    broker, start_worker, monkeypatch
):
    from django.db import DataError

    from queueadmin import ledger

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def work(number):
        if number == 3:
            raise ValueError("unstorable")

    commit = ledger.commit

    def refusing(endings):
        if any(ending.traceback for ending in endings):
            raise DataError("invalid byte sequence")
        return commit(endings)

    monkeypatch.setattr(ledger, "commit", refusing)
    for number in range(6):
        work.send(number)
    start_worker()

    wait_until(lambda: Attempt.objects.count() == 6)
    assert Job.objects.filter(state=JobState.COMPLETED).count() == 5
    assert "worker's log" in DeadLetter.objects.get().error_message


def test_what_the_ledger_refuses_in_every_form_stays_here_and_holds_up_nobody(
    broker, start_worker, monkeypatch
):
    from django.db import DataError

    from queueadmin import ledger

    monkeypatch.setattr(recorder, "_ASIDE_SECONDS", 0.1)
    monkeypatch.setattr(recorder, "_REFUSED_SECONDS", 0.1)
    is_mended = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number): ...

    victim = work.send(0).message_id
    commit = ledger.commit

    def refusing(endings):
        if not is_mended.is_set() and any(ending.job == victim for ending in endings):
            raise DataError("no column takes it")
        return commit(endings)

    monkeypatch.setattr(ledger, "commit", refusing)
    for number in range(1, 6):
        work.send(number)
    start_worker()

    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 5)
    wait_until(lambda: broker.recorder.is_healthy)
    # Settled after the commit, in that order: what is seen as completed may still be held.
    wait_until(lambda: broker.hand("q").held == {f"{victim}:1"})
    is_mended.set()
    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 6)
    wait_until(lambda: broker.transport.size("q") == 0)


def test_recovery_sends_again_what_a_flushed_server_forgot(broker, queue_server, start_worker):
    from datetime import timedelta

    from queueadmin import recovery
    from queueadmin.clock import now

    done = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        done.append(number)

    for number in range(50):
        work.send(number)
    Job.objects.update(due_at=now() - timedelta(minutes=1), in_broker=True)
    queue_server.empty()

    assert recovery.recover(dry_run=True).found["lost in the broker"] == 50
    assert recovery.recover().found["lost in the broker"] == 50
    assert recovery.recover().found["lost in the broker"] == 0
    start_worker()

    wait_until(lambda: Job.objects.filter(state=JobState.COMPLETED).count() == 50)
    assert sorted(done) == list(range(50))


def test_confirming_does_not_repeat_a_job_that_was_just_recorded(broker, start_worker):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(): ...

    work.send()
    (parcel,) = _parcels()
    start_worker()
    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)

    from queueadmin import ledger

    assert ledger.rescue([(parcel.job, parcel.dispatch)]) == []
    assert dispatcher.confirm(broker) == 0
    assert Attempt.objects.count() == 1


def _parcels():
    from queueadmin import ledger

    return ledger.parcels_of(Job.objects.all())
