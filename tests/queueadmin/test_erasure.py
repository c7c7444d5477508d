"""Personal data leave kept payloads for ever; the rows stay."""

import threading
from base64 import urlsafe_b64encode

import dramatiq
import pytest
from django.db import connection, transaction

from queueadmin import deadletters, erasure, operations, payloads
from queueadmin.exceptions import NotPermitted
from queueadmin.models import (
    Attempt,
    AuditEntry,
    DeadLetter,
    FailureGroup,
    Job,
    RequeueOperation,
)
from queueadmin.payloads import ERASED
from queueadmin.replacing import Replacement
from queueadmin.states import JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = [urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n")]


@pytest.fixture(params=["plain", "encrypted"])
def dead(request, broker, settings):
    keys = KEYS[:1] if request.param == "encrypted" else []
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ENCRYPTION_KEYS": keys}

    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone"], max_retries=0)
    def text_to(order_id, phone):
        raise ValueError("the account of Anna Alba is closed")

    text_to.send(12, "+49 170 5550123")
    run_jobs()
    broker.transport._client.flushdb()
    return DeadLetter.objects.get()


def everything_stored() -> str:
    models = (Job, Attempt, DeadLetter, FailureGroup, AuditEntry, RequeueOperation)
    return "".join(repr(row) for model in models for row in model.objects.values())


def test_sensitive_arguments_result_and_error_texts_are_gone_and_the_row_stays(dead):
    anna = make_user("anna", "erase_payload")

    result = erasure.erase([dead.job_id], by=anna, reason="asked for it")

    assert result.done == 1
    job = Job.objects.get()
    assert job.payload["args"] == [12, ERASED]
    assert job.erased_at
    assert (job.state, job.error_class, job.error_message) == (JobState.DEAD, "ValueError", ERASED)
    stored = everything_stored()
    assert "5550123" not in stored
    assert "Anna Alba" not in stored
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id, entry.reason) == ("erase", job.pk, "asked for it")


def test_all_arguments_are_erased_when_that_is_asked_for(dead):
    erasure.erase([dead.job_id], by=None, everything=True)

    assert payloads.masked(Job.objects.get().payload)["args"]
    assert "12" not in str(Job.objects.get().payload["args"])


def test_a_job_whose_payload_was_erased_is_not_requeued_and_it_says_so(dead):
    erasure.erase([dead.job_id], by=None)

    result = deadletters.requeue([dead.pk], by=None)

    assert (result.done, result.skipped) == (0, {"its payload was erased": 1})
    assert Job.objects.get().state == JobState.DEAD


def test_erasing_twice_or_what_is_not_over_is_skipped_with_the_reason():
    over = make_job(state=JobState.COMPLETED)
    running = make_job(state=JobState.ACTIVE)
    assert erasure.erase([over.pk], by=None).done == 1

    result = erasure.erase([over.pk, running.pk, "gone"], by=None)

    assert result.done == 0
    assert result.skipped == {"already erased": 1, "not finished": 1, "no longer there": 1}
    running.refresh_from_db()
    assert running.payload["kwargs"]["token"] == "hunter2"


def test_it_is_bounded_and_takes_a_permission(settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "BULK_LIMIT": 2}
    jobs = [make_job(state=JobState.COMPLETED).pk for _ in range(3)]

    with pytest.raises(NotPermitted):
        erasure.erase(jobs, by=make_user("viewer", "view_job"))
    assert not AuditEntry.objects.exists()
    result = erasure.erase(jobs, by=None)

    assert (result.done, result.skipped) == (2, {"over the limit of one action": 1})


@pytest.mark.parametrize("message", [b"", b"\xff\x00", b"[]", b"null", b'{"args": "x"}'])
def test_of_what_cannot_be_read_nothing_is_kept(message):
    letter = make_dead_letter(job={"message": message}, raw=b"password=hunter2")

    assert erasure.erase([letter.job_id], by=None).done == 1

    letter.refresh_from_db()
    assert letter.raw is None
    assert bytes(Job.objects.get().message) in (
        b'{"args": [], "kwargs": {}, "options": {}}',
        b'{"args":[],"kwargs":{},"options":{}}',
    )


def test_of_what_no_key_opens_nothing_is_kept(dead, settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ENCRYPTION_KEYS": KEYS[1:]}

    assert erasure.erase([dead.job_id], by=None).done == 1

    job = Job.objects.get()
    assert "gAAAA" not in repr(bytes(job.message))
    assert job.payload is not None


def test_a_message_that_waits_in_the_options_is_erased_too(broker):
    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone"])
    def first(phone): ...

    @dramatiq.actor(queue_name="q", broker=broker, sensitive=["phone"])
    def second(phone): ...

    dramatiq.pipeline(
        [
            first.message("+1 555 010 1000"),
            second.message_with_options(args=("+1 555 010 2000",), pipe_ignore=True),
        ]
    ).run()
    Job.objects.update(state=JobState.CANCELLED)

    erasure.erase(Job.objects.values_list("pk", flat=True), by=None)

    assert "+1 555" not in str(Job.objects.get().payload)
    assert Job.objects.get().payload["options"]["pipe_target"]["actor_name"] == "second"


@pytest.mark.parametrize("first", ["erase", "requeue"])
def test_of_an_erasure_and_a_requeue_the_first_to_lock_wins(broker, first):
    """Both orders: the second is held up by the first one's locks until it has committed."""
    letter = make_dead_letter()
    acts = {
        "erase": lambda: erasure.erase([letter.job_id], by=None).done,
        "requeue": lambda: deadletters.requeue([letter.pk], by=None).done,
    }
    second = "requeue" if first == "erase" else "erase"
    done, is_second_ready = {}, threading.Event()

    def rival():
        is_second_ready.set()
        try:
            done[second] = acts[second]()
        finally:
            connection.close()

    thread = threading.Thread(target=rival)
    with transaction.atomic():
        done[first] = acts[first]()
        thread.start()
        assert is_second_ready.wait(10)
    thread.join(30)

    assert done == {first: 1, second: 0}
    job = Job.objects.get()
    is_erased = first == "erase"
    assert (job.erased_at is not None, job.state) == (
        is_erased,
        JobState.DEAD if is_erased else JobState.WAITING,
    )


@pytest.fixture
def callers(broker):
    """Make dead letters of a job with a name that is not declared sensitive."""

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def call_back(who: str):
        raise ValueError("no answer")

    def make(*names):
        for name in names:
            call_back.send(name)
        run_jobs()
        broker.transport._client.flushdb()
        return list(DeadLetter.objects.order_by("pk"))

    return make


CORRECTION = Replacement("who", "Ada Alba", "Ada Alba-Berg")


def correct(letters):
    return operations.create(
        [letter.pk for letter in letters], by=None, name="Married", replacement=CORRECTION
    )


def test_what_an_operation_changed_from_and_to_is_erased_with_its_jobs(callers):
    letters = callers(CORRECTION.before, "Ben Berg")
    operation = correct(letters)
    operations.abort(operation.pk, by=None)

    # The other one has another value, so that the operation says nothing about its person.
    erasure.erase([letters[1].job_id], by=None, everything=True)
    operation.refresh_from_db()
    assert operation.argument_before == CORRECTION.before
    assert erasure.erase([letters[0].job_id], by=None, everything=True).done == 1

    operation.refresh_from_db()
    assert (operation.argument, operation.argument_before) == ("who", ERASED)
    assert "Alba" not in everything_stored()


def test_a_job_that_an_operation_under_way_changes_is_erased_when_that_has_ended(callers):
    (letter,) = callers(CORRECTION.before)
    operation = correct([letter])

    result = erasure.erase([letter.job_id], by=None)

    assert (result.done, result.skipped) == (0, {"being changed by a requeue operation": 1})
    assert Job.objects.get().erased_at is None
    operations.abort(operation.pk, by=None)
    assert erasure.erase([letter.job_id], by=None).done == 1


@pytest.mark.parametrize("first", ["erase", "correct"])
def test_of_an_erasure_and_the_beginning_of_a_change_the_first_to_lock_wins(callers, first):
    """Both orders: the second is held up by the first one's locks until it has committed."""
    letters = callers(CORRECTION.before, CORRECTION.before)
    acts = {
        "erase": lambda: erasure.erase([letters[0].job_id], by=None).done,
        "correct": lambda: correct(letters).items.filter(state="waiting").count(),
    }
    second = "correct" if first == "erase" else "erase"
    done, is_second_ready = {}, threading.Event()

    def rival():
        is_second_ready.set()
        try:
            done[second] = acts[second]()
        finally:
            connection.close()

    thread = threading.Thread(target=rival)
    with transaction.atomic():
        done[first] = acts[first]()
        thread.start()
        assert is_second_ready.wait(10)
        thread.join(0.5)
    thread.join(30)

    # Erased first, it is left out of the operation; changed first, it is not erased yet.
    assert done == ({"erase": 1, "correct": 1} if first == "erase" else {"correct": 2, "erase": 0})
