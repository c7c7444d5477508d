"""Cancel, reschedule, run now: certain where they say so, whoever acts at the same moment."""

import logging
import threading
import time
from datetime import datetime, timedelta

import dramatiq
import pytest
from django.db import transaction
from dramatiq.results import ResultFailure

from queueadmin import dispatcher, jobs, ledger
from queueadmin.brokers import StubBroker
from queueadmin.clock import now
from queueadmin.exceptions import Cancelled, NotPermitted
from queueadmin.models import Attempt, AuditEntry, DeadLetter, Job
from queueadmin.states import JobState, Outcome
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def work(broker, ran):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number=0):
        ran.append(number)

    return work


def state_of(message):
    return Job.objects.get(pk=message.message_id).state


def only(job_id):
    return ledger.parcels_of(Job.objects.filter(pk=job_id))


# --- Cancel -----------------------------------------------------------------------------
@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
def test_what_is_not_due_is_cancelled_for_certain(broker, state):
    job = make_job(state=state, due_at=now())

    result = jobs.cancel(job.pk, by=None, reason="order withdrawn")

    assert (result.done, result.stopping, result.skipped) == (1, 0, {})
    job.refresh_from_db()
    assert (job.state, job.dispatch) == (JobState.CANCELLED, 2)
    assert job.finished_at is not None
    assert ledger.promote_due(now(), 10) == []


def test_a_waiting_job_is_taken_out_of_the_broker(broker, work):
    stays, goes = work.send(1), work.send(2)

    result = jobs.cancel(goes.message_id, by=None)

    assert (result.done, result.stopping) == (1, 0)
    assert state_of(goes) == JobState.CANCELLED
    fetched = broker.transport.fetch("q", 10)
    assert [parcel_id for parcel_id, _ in fetched] == [f"{stays.message_id}:1"]


def test_what_was_taken_out_does_not_hold_up_what_is_behind_it(broker, work):
    messages = [work.send(number) for number in range(50)]
    jobs.cancel([message.message_id for message in messages[:-1]], by=None)

    fetched = broker.transport.fetch("q", 1)

    assert [parcel_id for parcel_id, _ in fetched] == [f"{messages[-1].message_id}:1"]


def test_a_job_in_a_workers_hands_is_not_called_cancelled_before_it_is_certain(broker, work):
    message = work.send()
    broker.transport.fetch("q", 1)

    result = jobs.cancel(message.message_id, by=None)

    assert (result.done, result.stopping) == (0, 1)
    job = Job.objects.get()
    assert (job.state, job.is_cancelling) == (JobState.WAITING, True)


def test_a_prefetched_job_that_is_cancelled_does_not_start(broker, start_worker, ran):
    release = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def hold(number):
        ran.append(number)
        release.wait(20)

    first, second = hold.send(1), hold.send(2)
    start_worker(threads=1)
    held = lambda: sum(map(len, broker.transport.held_by(broker.transport.worker_id).values()))  # noqa: E731
    wait_until(lambda: held() == 2 and ran == [1])

    result = jobs.cancel(second.message_id, by=None)
    wait_until(lambda: broker.controls.is_cancelling(second.message_id, 1))
    release.set()

    wait_until(lambda: state_of(second) == JobState.CANCELLED)
    assert result.stopping == 1
    assert ran == [1]
    assert state_of(first) == JobState.COMPLETED
    assert not Attempt.objects.filter(job_id=second.message_id).exists()
    with pytest.raises(ResultFailure, match="cancelled"):
        second.get_result()


def test_a_running_job_is_interrupted_and_ends_as_cancelled(broker, start_worker, ran, caplog):
    @dramatiq.actor(queue_name="q", broker=broker)
    def loop():
        ran.append("started")
        try:
            while True:
                time.sleep(0.01)
        except Cancelled:
            ran.append("interrupted")
            raise

    message = loop.send()
    start_worker()
    wait_until(lambda: ran == ["started"])

    with caplog.at_level(logging.INFO, logger="queueadmin.jobs"):
        result = jobs.cancel(message.message_id, by=None)
        wait_until(lambda: state_of(message) == JobState.CANCELLED)

    assert result.stopping == 1
    assert ran == ["started", "interrupted"]
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.number) == (Outcome.CANCELLED, 1)
    assert not DeadLetter.objects.exists()
    assert f"cancelled job={message.message_id} queue=q" in caplog.text
    wait_until(lambda: broker.transport.size("q") == 0)


def test_a_job_that_completes_before_it_can_be_stopped_is_completed(broker, start_worker, ran):
    release = threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker)
    def stubborn():
        ran.append("started")
        try:
            while not release.wait(0.01):
                pass
        except Cancelled:
            ran.append("finished all the same")

    message = stubborn.send()
    start_worker()
    wait_until(lambda: ran == ["started"])

    jobs.cancel(message.message_id, by=None)
    wait_until(lambda: len(ran) == 2)

    wait_until(lambda: state_of(message) == JobState.COMPLETED)
    assert Job.objects.get().cancel_requested_at is not None


def test_a_job_that_fails_after_its_cancel_is_not_retried(broker, start_worker, ran):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=5, min_backoff=1, max_backoff=1)
    def fail():
        ran.append("started")
        try:
            while True:
                time.sleep(0.01)
        except Cancelled:
            raise ValueError("while cleaning up") from None

    message = fail.send()
    start_worker()
    wait_until(lambda: ran == ["started"])

    jobs.cancel(message.message_id, by=None)

    wait_until(lambda: state_of(message) == JobState.CANCELLED)
    assert Attempt.objects.get().outcome == Outcome.CANCELLED
    assert ran == ["started"]


def test_cancels_racing_with_busy_workers_never_call_cancelled_what_has_run(
    broker, start_worker, ran
):
    @dramatiq.actor(queue_name="q", broker=broker)
    def work(number):
        ran.append(number)
        time.sleep(0.02)  # a job's work

    messages = broker.enqueue_many(work.message(number) for number in range(400))
    number_of = {message.message_id: number for number, message in enumerate(messages)}
    start_worker(threads=4)
    wait_until(lambda: ran)

    # From the end, where the workers are not yet, to where they are.
    for message in reversed(messages):
        jobs.cancel(message.message_id, by=None)

    wait_until(lambda: not Job.objects.unfinished().exists())
    run = set(ran)
    assert len(run) == len(ran)
    interrupted = set(Attempt.objects.values_list("job_id", flat=True))
    for job in Job.objects.all():
        if job.state == JobState.CANCELLED and job.pk not in interrupted:
            assert number_of[job.pk] not in run
        else:
            assert number_of[job.pk] in run or job.state == JobState.CANCELLED
    states = set(Job.objects.values_list("state", flat=True))
    assert states == {JobState.CANCELLED, JobState.COMPLETED}


def test_a_cancel_that_is_rolled_back_changes_nothing(broker, work):
    message = work.send()

    with pytest.raises(RuntimeError), transaction.atomic():
        assert jobs.cancel(message.message_id, by=None).stopping == 1
        raise RuntimeError

    assert not Job.objects.get().cancel_requested_at
    assert broker.transport.size("q") == 1
    assert not AuditEntry.objects.exists()


def test_in_a_transaction_the_broker_is_asked_after_its_commit(broker, work):
    with transaction.atomic():
        message = work.send()
        jobs.cancel(message.message_id, by=None)
        assert state_of(message) == JobState.WAITING

    assert state_of(message) == JobState.CANCELLED
    assert broker.transport.fetch("q", 10) == []


def test_a_cancel_while_the_broker_is_away_is_carried_on_later(transactional_db):
    previous = dramatiq.get_broker()
    stub = StubBroker()
    dramatiq.set_broker(stub)
    try:

        @dramatiq.actor(queue_name="q", broker=stub)
        def work(): ...

        message = work.send()
        stub.transport.is_down = True
        assert jobs.cancel(message.message_id, by=None).stopping == 1

        stub.transport.is_down = False
        assert dispatcher.cancel(stub) == 1
    finally:
        dramatiq.set_broker(previous)

    assert state_of(message) == JobState.CANCELLED
    assert stub.transport.fetch("q", 1) == []


def test_a_process_that_died_between_broker_and_ledger_leaves_a_cancel_that_ends(broker, work):
    message = work.send()
    with transaction.atomic():
        held = ledger.cancel([message.message_id]).stopping
    broker.transport.withdraw(held)
    past = now() - timedelta(seconds=10)
    Job.objects.update(due_at=past, cancel_requested_at=past)

    assert dispatcher.confirm(broker) == 0
    assert dispatcher.cancel(broker) == 1

    assert state_of(message) == JobState.CANCELLED
    assert broker.transport.fetch("q", 10) == []


def test_a_cancelled_job_in_a_dead_workers_hands_does_not_run_again(broker, work, make_broker):
    message = work.send()
    other = make_broker()
    other.transport.heartbeat()
    other.transport.fetch("q", 1)
    other.close()
    jobs.cancel(message.message_id, by=None)
    Job.objects.update(cancel_requested_at=now() - timedelta(seconds=10))

    other.transport.declare_dead(other.transport.worker_id)
    assert dispatcher.rescue(broker) == 0
    assert dispatcher.cancel(broker) == 1

    assert state_of(message) == JobState.CANCELLED
    assert broker.transport.fetch("q", 10) == []


@pytest.mark.parametrize("is_cancel_first", [True, False])
def test_cancel_and_outcome_of_the_same_run_have_one_winner(broker, work, is_cancel_first):
    message = work.send()
    parcels = only(message.message_id)
    with transaction.atomic():
        ledger.cancel([message.message_id])
    at = now()
    ending = ledger.Ending(
        job=message.message_id,
        dispatch=1,
        state=JobState.COMPLETED,
        outcome=Outcome.COMPLETED,
        attempt=1,
        started_at=at,
        finished_at=at,
    )

    def write():
        with transaction.atomic():
            return ledger.cancel_withdrawn(parcels)

    if is_cancel_first:
        assert len(write()) == 1
        assert len(ledger.commit([ending]).stale) == 1
        assert state_of(message) == JobState.CANCELLED
    else:
        assert ledger.commit([ending]).accepted
        assert write() == []
        assert state_of(message) == JobState.COMPLETED


@pytest.mark.parametrize("is_cancel_first", [True, False])
def test_cancel_and_dispatcher_have_one_winner(broker, is_cancel_first):
    job = make_job(state=JobState.SCHEDULED, due_at=now() - timedelta(seconds=1))

    if is_cancel_first:
        jobs.cancel(job.pk, by=None)
        assert dispatcher.promote(broker) == 0
    else:
        assert dispatcher.promote(broker) == 1
        assert jobs.cancel(job.pk, by=None).done == 1

    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    assert broker.transport.fetch(job.queue, 10) == []


def test_cancelling_twice_changes_and_records_once_and_says_why(broker, work, django_user_model):
    anna = django_user_model.objects.create_superuser("anna")
    waiting, held = work.send(), work.send()
    jobs.cancel(waiting.message_id, by=anna, reason="not needed")
    broker.transport.fetch("q", 1)
    jobs.cancel([held.message_id], by=anna)

    again = jobs.cancel([waiting.message_id, held.message_id, "nobody"], by=anna)

    assert (again.requested, again.done, again.stopping) == (3, 0, 0)
    assert again.skipped == {
        "already cancelled": 1,
        "cancel requested already": 1,
        "no longer there": 1,
    }
    entries = AuditEntry.objects.filter(verb="cancel", target_type="job").order_by("pk")
    assert [(entry.target_id, entry.reason) for entry in entries] == [
        (waiting.message_id, "not needed"),
        (held.message_id, ""),
    ]


def test_what_has_ended_is_left_alone(broker):
    done = make_job(state=JobState.COMPLETED)
    dead = make_dead_letter().job

    result = jobs.cancel([done.pk, dead.pk], by=None)

    assert result.done == 0
    assert result.skipped == {"already completed": 1, "failed for good": 1}


def test_a_requeued_job_is_not_haunted_by_an_old_cancel(broker):
    letter = make_dead_letter(job={"cancel_requested_at": now()})

    with transaction.atomic():
        ledger.requeue([letter.job_id])

    assert not Job.objects.get().is_cancelling


def test_verbs_need_their_permission(broker):
    nobody = make_user("nobody", "view_job")
    job = make_job(state=JobState.SCHEDULED)

    with pytest.raises(NotPermitted, match="cancel_job"):
        jobs.cancel(job.pk, by=nobody)
    with pytest.raises(NotPermitted, match="reschedule_job"):
        jobs.reschedule(job.pk, now(), by=nobody)
    with pytest.raises(NotPermitted, match="retry_job"):
        jobs.retry(job.pk, by=nobody)

    job.refresh_from_db()
    assert job.state == JobState.SCHEDULED
    assert not AuditEntry.objects.exists()


def test_more_than_the_limit_is_left_out_and_said(broker, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "BULK_LIMIT": 2}
    ids = [make_job(state=JobState.SCHEDULED).pk for _ in range(3)]

    result = jobs.cancel(ids, by=None)

    assert (result.requested, result.done) == (3, 2)
    assert result.skipped == {"over the limit of one action": 1}


def test_run_jobs_cancels_what_shall_not_start(work, ran):
    message = work.send()
    dramatiq.get_broker().transport.fetch("q", 1)
    jobs.cancel(message.message_id, by=None)

    assert run_jobs() == 0

    assert ran == []
    assert state_of(message) == JobState.CANCELLED


# --- Reschedule and retry ---------------------------------------------------------------
@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
def test_a_job_that_is_not_due_moves_in_time(broker, state):
    job = make_job(state=state, due_at=now() + timedelta(hours=1))
    later = now() + timedelta(days=300)

    result = jobs.reschedule(job.pk, later, by=None, reason="booking moved")

    assert result.done == 1
    job.refresh_from_db()
    assert (job.state, job.due_at) == (state, later)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.reason) == ("reschedule", "booking moved")
    assert entry.detail == {"to": later.isoformat()}


def test_a_waiting_job_is_scheduled_and_runs_once_then(broker, work, ran):
    message = work.send(7)
    later = now() + timedelta(hours=1)

    assert jobs.reschedule(message.message_id, later, by=None).done == 1

    job = Job.objects.get()
    assert (job.state, job.dispatch, job.due_at) == (JobState.SCHEDULED, 2, later)
    assert broker.transport.fetch("q", 10) == []
    jobs.retry(message.message_id, by=None)
    assert [parcel_id for parcel_id, _ in broker.transport.fetch("q", 10)] == [f"{job.pk}:2"]


def test_a_job_that_a_worker_took_is_not_rescheduled(broker, work):
    message = work.send()
    broker.transport.fetch("q", 1)

    result = jobs.reschedule(message.message_id, now() + timedelta(hours=1), by=None)

    assert result.skipped == {"already with a worker": 1}
    assert state_of(message) == JobState.WAITING


def test_a_reschedule_that_is_rolled_back_loses_no_job(broker, work):
    message = work.send()
    with pytest.raises(RuntimeError), transaction.atomic():
        jobs.reschedule(message.message_id, now() + timedelta(hours=1), by=None)
        raise RuntimeError
    assert state_of(message) == JobState.WAITING
    Job.objects.update(due_at=now() - timedelta(seconds=10))

    from queueadmin import recovery

    recovery.recover()

    assert broker.transport.size("q") == 1


@pytest.mark.parametrize("to", [datetime(2026, 1, 1), now() + timedelta(days=4000)])
def test_a_time_that_makes_no_sense_is_refused(broker, to):
    with pytest.raises(ValueError, match=r"time zone|10 years"):
        jobs.reschedule("x", to, by=None)


def test_a_retrying_job_runs_now_with_its_attempts_kept(broker, work):
    message = work.send_with_options(args=(1,), delay=3_600_000)
    Job.objects.update(state=JobState.RETRYING, attempts=1)

    result = jobs.retry(message.message_id, by=None)

    assert result.done == 1
    job = Job.objects.get()
    assert (job.state, job.attempts) == (JobState.WAITING, 1)
    ((_, data),) = broker.transport.fetch("q", 10)
    assert b'"retries":1' in data
    assert jobs.retry(message.message_id, by=None).skipped == {"already due": 1}


def test_what_runs_now_leaves_after_the_commit(broker, work):
    message = work.send_with_options(delay=3_600_000)

    with transaction.atomic():
        jobs.retry(message.message_id, by=None)
        assert broker.transport.size("q") == 0

    assert broker.transport.size("q") == 1


def test_a_dead_job_is_not_retried_but_requeued(broker):
    letter = make_dead_letter()

    assert jobs.retry(letter.job_id, by=None).skipped == {"failed for good": 1}


def test_previews_say_what_would_happen(broker):
    ids = [make_job(state=state).pk for state in JobState]

    assert jobs.preview(ids, "cancel").done == 4
    assert jobs.preview(ids, "reschedule").done == 3
    found = jobs.preview([*ids, "nobody"], "retry")
    assert (found.requested, found.done) == (8, 2)
    assert found.skipped["already running"] == 1
    assert found.skipped["no longer there"] == 1


# --- Look up ----------------------------------------------------------------------------
def test_jobs_are_found_by_id_and_listed_by_what_they_are(broker):
    one = make_job(queue="a", state=JobState.RETRYING)
    make_job(queue="b")

    assert jobs.get(one.pk) == one
    with pytest.raises(Job.DoesNotExist):
        jobs.get("no\0body")
    assert [job.pk for job in jobs.list(state="failed")] == [one.pk]
    assert [job.pk for job in jobs.list(queue="a", since=one.enqueued_at)] == [one.pk]
    assert not jobs.list(until=one.enqueued_at, queue="a").exists()
    with pytest.raises(ValueError, match="known: scheduled"):
        jobs.list(state="scheduld")


def test_a_message_is_scheduled_at_a_time(broker, work):
    at = (now() + timedelta(days=365)).replace(microsecond=0)

    message = jobs.schedule(work.message(1), at=at)

    job = jobs.get(message.message_id)
    assert (job.state, job.due_at) == (JobState.SCHEDULED, at)
