"""Unique keys: one job per key, whoever enqueues, commits or rolls back at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import dramatiq
import pytest
from django.db import connection, transaction

from queueadmin import deadletters, jobs, ledger, retention
from queueadmin.clock import now
from queueadmin.exceptions import InvalidMessage, PermanentError
from queueadmin.models import DeadLetter, Job, UniqueKey
from queueadmin.states import DeadLetterStatus, JobState
from queueadmin.testing import run_jobs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_provider]


@pytest.fixture
def ran():
    return []


@pytest.fixture
def score(broker, ran):
    @dramatiq.actor(queue_name="q", broker=broker, unique_key="retailer:{retailer}")
    def score(retailer, *, reason=""):
        ran.append(retailer)
        if reason == "refused":
            raise PermanentError("refused")

    return score


def test_a_second_enqueue_returns_the_first_job(broker, score):
    first = score.send(7, reason="order")

    second = score.send(retailer=7, reason="payment")

    assert second.message_id == first.message_id
    assert Job.objects.get().unique_key == "retailer:7"
    assert broker.transport.size("q") == 1
    assert score.send(8).message_id != first.message_id


def test_the_key_is_free_when_the_job_has_completed(score, ran):
    first = score.send(7)
    run_jobs()

    second = score.send(7)

    assert second.message_id != first.message_id
    run_jobs()
    assert ran == [7, 7]
    assert not UniqueKey.objects.exists()


def test_a_retry_keeps_the_key(broker):
    @dramatiq.actor(queue_name="q", broker=broker, unique_key="one", min_backoff=60_000)
    def fail():
        raise ValueError

    first = fail.send()
    run_jobs()
    assert jobs.get(first.message_id).state == JobState.RETRYING

    assert fail.send().message_id == first.message_id


@pytest.mark.parametrize("how", ["scheduled", "waiting"])
def test_a_cancelled_job_lets_go_of_its_key(score, how):
    first = score.send_with_options(args=(7,), delay=60_000 if how == "scheduled" else None)

    assert jobs.cancel(first.message_id, by=None).done == 1

    assert score.send(7).message_id != first.message_id


def test_a_flushed_queue_lets_go_of_its_keys(broker, score):
    score.send(7)

    broker.flush("q")

    assert not UniqueKey.objects.exists()


def test_a_period_outlasts_the_job_and_ends(broker, score, time_machine):
    time_machine.move_to(now(), tick=False)
    options = {"unique_key": "daily", "unique_for": 3_600_000}
    first = score.send_with_options(args=(1,), **options)
    run_jobs()

    time_machine.shift(3_599)
    assert score.send_with_options(args=(1,), **options).message_id == first.message_id
    time_machine.shift(2)
    second = score.send_with_options(args=(1,), **options)

    assert second.message_id != first.message_id
    assert UniqueKey.objects.get().job_id == second.message_id


def test_keys_whose_period_is_over_are_cleaned_up(broker, score, time_machine):
    time_machine.move_to(now(), tick=False)
    score.send_with_options(args=(1,), unique_key="daily", unique_for=1000)
    score.send(7)
    time_machine.shift(2)

    retention.apply_retention()

    assert UniqueKey.objects.get().key == "retailer:7"


def test_two_actors_may_use_the_same_key(broker, score):
    @dramatiq.actor(queue_name="q", broker=broker, unique_key="retailer:{retailer}")
    def remind(retailer): ...

    assert score.send(7).message_id != remind.send(7).message_id


def test_a_key_may_be_a_function_that_makes_none(broker):
    @dramatiq.actor(
        queue_name="q", broker=broker, unique_key=lambda number: f"n{number}" if number else None
    )
    def work(number): ...

    assert work.send(1).message_id == work.send(1).message_id
    assert work.send(0).message_id != work.send(0).message_id


def test_a_message_may_say_its_own_key_or_none(score):
    first = score.send_with_options(args=(7,), unique_key="mine")

    assert score.send(7).message_id != first.message_id
    assert score.send_with_options(args=(9,), unique_key="mine").message_id == first.message_id
    anyhow = score.send_with_options(args=(7,), unique_key=None)
    assert jobs.get(anyhow.message_id).unique_key == ""


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"unique_key": ""}, "unique_key"),
        ({"unique_key": 7}, "unique_key"),
        ({"unique_key": "a\0b"}, "unique_key"),
        ({"unique_key": "x" * 151}, "unique_key"),
        ({"unique_key": "x", "unique_for": 0}, "unique_for"),
        ({"unique_key": "x", "unique_for": "1 h"}, "unique_for"),
        ({"unique_key": "x", "unique_for": 10**14}, "unique_for"),
        ({"unique_key": None, "unique_for": 5}, "unique_for"),
    ],
)
def test_a_key_that_cannot_be_kept_is_refused_and_names_the_field(score, options, field):
    with pytest.raises(InvalidMessage) as caught:
        score.send_with_options(args=(7,), **options)

    assert caught.value.field == field
    assert not Job.objects.exists()


def test_a_template_that_does_not_fit_is_refused_and_says_why(broker):
    @dramatiq.actor(queue_name="q", broker=broker, unique_key="order:{order}")
    def work(number): ...

    with pytest.raises(InvalidMessage, match=r"'order:\{order\}' does not fit its arguments"):
        work.send(1)


def test_of_many_the_first_of_each_key_is_added(broker, score):
    held = score.send(3)

    found = broker.enqueue_many(score.message(retailer) for retailer in (1, 2, 1, 3, 2))

    ids = [message.message_id for message in found]
    assert ids[0] == ids[2]
    assert ids[1] == ids[4]
    assert ids[3] == held.message_id
    assert Job.objects.count() == UniqueKey.objects.count() == 3
    assert broker.transport.size("q") == 3


def test_on_rollback_the_key_is_gone_with_the_job(score):
    with pytest.raises(RuntimeError), transaction.atomic():
        score.send(7)
        raise RuntimeError

    assert not UniqueKey.objects.exists()
    score.send(7)
    assert Job.objects.count() == 1


def test_a_held_key_does_not_break_the_callers_transaction(score):
    score.send(7)

    with transaction.atomic():
        score.send(7)
        score.send(8)

    assert Job.objects.count() == 2


def test_the_same_message_sent_twice_holds_its_own_key(broker, score):
    message = score.message(7)
    broker.enqueue(message)

    assert broker.enqueue(message).message_id == message.message_id
    run_jobs()
    # It ended: sent again it neither runs nor holds the key for ever.
    broker.enqueue(message)
    assert not UniqueKey.objects.exists()


def test_a_follow_up_may_take_the_key_that_its_parent_lets_go_of(broker, ran):
    @dramatiq.actor(queue_name="q", broker=broker, unique_key="chain")
    def link(number=0):
        ran.append(number)

    dramatiq.pipeline(
        [link.message(1), link.message_with_options(args=(2,), pipe_ignore=True)], broker=broker
    ).run()
    run_jobs()

    assert ran == [1, 2]
    assert not UniqueKey.objects.exists()


def test_a_dead_job_holds_no_key_and_its_requeue_meets_the_holder(score, ran):
    dead = score.send(7, reason="refused")
    run_jobs()
    letter = DeadLetter.objects.get()
    holder = score.send(7)
    assert holder.message_id != dead.message_id

    result = deadletters.requeue([letter.pk], by=None)

    assert (result.done, result.skipped) == (0, {"unique key held by another job": 1})
    assert result.held_by == {letter.pk: holder.message_id}
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING
    assert jobs.get(dead.message_id).state == JobState.DEAD
    run_jobs()

    assert deadletters.requeue([letter.pk], by=None).done == 1
    assert score.send(7).message_id == dead.message_id


def test_of_two_dead_jobs_with_one_key_one_is_requeued(score):
    for _ in range(2):
        score.send(7, reason="refused")
        run_jobs()
    letters = list(DeadLetter.objects.order_by("pk"))

    result = deadletters.requeue([letter.pk for letter in letters], by=None)

    assert (result.done, result.skipped) == (1, {"unique key held by another job": 1})
    (holder,) = result.held_by.values()
    assert Job.objects.get(state=JobState.WAITING).pk == holder


def test_a_requeue_after_the_period_needs_no_key(score, time_machine):
    time_machine.move_to(now(), tick=False)
    options = {"unique_key": "daily", "unique_for": 1000}
    score.send_with_options(args=(1,), kwargs={"reason": "refused"}, **options)
    run_jobs()
    time_machine.shift(2)
    score.send_with_options(args=(1,), **options)

    assert deadletters.requeue([DeadLetter.objects.get().pk], by=None).done == 1


def test_jobs_without_a_key_ask_nothing_more_when_they_end(broker, django_assert_num_queries):
    @dramatiq.actor(queue_name="q", broker=broker)
    def plain(): ...

    def end(messages):
        from tests.queueadmin.ledger.test_endings import ending

        ledger.commit([ending(message.message_id) for message in messages])

    messages = [plain.send(), plain.send()]
    # BEGIN, UPDATE, INSERT of attempts and counts, which PostgreSQL takes together, COMMIT.
    with django_assert_num_queries(4 if connection.vendor == "postgresql" else 5):
        end(messages)


# --- Races ------------------------------------------------------------------------------
def _in_threads(number, act):
    """Run `act(0)`, `act(1)` … at the same moment in threads with connections of their own."""
    barrier = threading.Barrier(number)

    def run(index):
        barrier.wait()
        try:
            return act(index)
        finally:
            connection.close()

    with ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(run, n) for n in range(number)]]


@pytest.mark.parametrize("rolled_back", ["even", "all"])
def test_a_thousand_enqueues_of_one_key_in_fifty_transactions_make_one_job(
    broker, score, rolled_back
):
    # SQLite has one writer at a time, which each of its transactions is from the start.
    transactions = 50 if connection.vendor == "postgresql" else 20

    def act(index):
        ids = set()
        try:
            with transaction.atomic():
                for _ in range(1000 // transactions):
                    ids.add(score.send(7).message_id)
                if rolled_back == "all" or index % 2 == 0:
                    raise RuntimeError
        except RuntimeError:
            return None
        return ids

    committed = [ids for ids in _in_threads(transactions, act) if ids is not None]

    if rolled_back == "all":
        assert not Job.objects.exists()
        assert not UniqueKey.objects.exists()
        assert broker.transport.size("q") == 0
        return
    job = Job.objects.get()
    assert committed == [{job.pk}] * (transactions // 2)
    assert UniqueKey.objects.get().job_id == job.pk
    assert broker.transport.size("q") == 1


def test_bulks_with_the_same_keys_in_other_orders_do_not_lock_each_other_out(broker, score):
    def act(index):
        order = range(40) if index % 2 else range(39, -1, -1)
        return {
            message.args[0]: message.message_id
            for message in broker.enqueue_many(score.message(number) for number in order)
        }

    found = _in_threads(8, act)

    assert Job.objects.count() == 40
    assert all(one == found[0] for one in found)


def test_enqueues_and_endings_of_one_key_leave_no_key_behind(broker, score, start_worker, ran):
    start_worker()

    def act(index):
        return [score.send(7).message_id for _ in range(25)]

    ids = {job_id for found in _in_threads(4, act) for job_id in found}
    broker.join("q", timeout=20_000)

    assert {job.pk for job in Job.objects.filter(state=JobState.COMPLETED)} == ids
    assert len(ran) == len(ids)
    assert not UniqueKey.objects.exists()


@pytest.mark.parametrize("expired_first", [True, False])
def test_two_that_find_an_expired_key_make_one_job(broker, score, expired_first):
    UniqueKey.objects.create(
        actor="score",
        key="retailer:7",
        job_id="gone",
        expires_at=now() - timedelta(seconds=1) if expired_first else None,
    )

    found = set(_in_threads(8, lambda _: score.send(7).message_id))

    assert len(found) == 1
    assert Job.objects.count() == (1 if expired_first else 0)
