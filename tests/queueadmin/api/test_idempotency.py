"""A request that comes twice is done once, whichever comes first."""

import threading
from datetime import timedelta

import dramatiq
import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from queueadmin import idempotency
from queueadmin.idempotency import Answer, KeyReused, once
from queueadmin.models import DeadLetter, IdempotencyKey, Job, Note
from queueadmin.retention import apply_retention
from tests.queueadmin.rows import make_dead_letter, make_user


@pytest.fixture
def greet(broker):
    @dramatiq.actor(queue_name="greetings", actor_name="greet")
    def greet(name: str) -> None:
        """Never run here."""


def enqueue(call, name="Ada", **headers):
    body = {"actor": "greet", "args": [name]}
    return call("POST", "queues/greetings/jobs/", body, **headers)


def test_the_second_is_answered_as_the_first(call, greet):
    first = enqueue(call, **{"Idempotency-Key": "k1"})
    second = enqueue(call, **{"Idempotency-Key": "k1"})

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"
    assert Job.objects.count() == 1


def test_another_request_with_the_key_is_refused(call, greet):
    enqueue(call, **{"Idempotency-Key": "k1"})
    answer = enqueue(call, "Grace", **{"Idempotency-Key": "k1"})

    assert answer.status_code == 422
    assert Job.objects.count() == 1


def test_keys_of_different_users_are_different(call, make_program, greet):
    enqueue(call, **{"Idempotency-Key": "k1"})
    other = make_program("enqueue_job", name="other")
    enqueue(other, **{"Idempotency-Key": "k1"})

    assert Job.objects.count() == 2


def test_what_was_refused_may_be_tried_again(call, greet):
    assert enqueue(call, 7, **{"Idempotency-Key": "k1"}).status_code == 400
    assert enqueue(call, **{"Idempotency-Key": "k1"}).status_code == 201


@pytest.mark.parametrize("key", ["", "two words", "é", "x" * 256])
def test_a_key_that_is_none_is_refused(call, greet, key):
    assert enqueue(call, **{"Idempotency-Key": key}).status_code == 400
    assert not Job.objects.exists()


def test_a_requeue_that_comes_twice_is_no_conflict(call, broker):
    letter = make_dead_letter()
    path = f"dead-letters/{letter.pk}/requeue/"
    answers = [call("POST", path, **{"Idempotency-Key": "k1"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert DeadLetter.objects.get().job.requeues == 1


def test_a_note_that_comes_twice_is_written_once(call):
    letter = make_dead_letter()
    for _ in range(2):
        call("POST", f"dead-letters/{letter.pk}/notes/", {"text": "x"}, **{"Idempotency-Key": "k1"})

    assert Note.objects.count() == 1


def test_answers_are_forgotten_after_a_day(call, greet):
    enqueue(call, **{"Idempotency-Key": "k1"})
    IdempotencyKey.objects.update(
        created_at=timezone.now() - idempotency.KEEP - timedelta(seconds=1)
    )
    apply_retention()

    assert not IdempotencyKey.objects.exists()


# --- Both orders of two at once ---------------------------------------------------------
class Two:
    """Does an act in another thread while this thread's transaction with the key is open."""

    def __init__(self):
        self.user = make_user("script")
        self.done = []
        self.answers = []
        self.thread = None

    def act(self, name):
        self.done.append(name)
        return Answer(200, name)

    def start_second(self):
        started = threading.Event()

        def second():
            started.set()
            try:
                self.answers.append(
                    once("k", user=self.user, fingerprint="f", act=lambda: self.act("second"))
                )
            finally:
                connections.close_all()

        self.thread = threading.Thread(target=second)
        self.thread.start()
        started.wait()
        # It waits for us now; were it let in, it would have acted by then.
        self.thread.join(0.5)
        return self.thread.is_alive()


@pytest.mark.django_db(transaction=True)
def test_the_second_waits_for_the_first_and_repeats_its_answer():
    two = Two()

    def first():
        two.act("first")
        assert two.start_second()
        return Answer(200, "first")

    once("k", user=two.user, fingerprint="f", act=first)
    two.thread.join(20)

    assert two.done == ["first"]
    assert two.answers == [Answer(200, "first", is_repeated=True)]


@pytest.mark.django_db(transaction=True)
def test_the_second_acts_when_the_first_is_rolled_back():
    two = Two()

    def first():
        assert two.start_second()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once("k", user=two.user, fingerprint="f", act=first)
    two.thread.join(20)

    assert two.done == ["second"]
    assert two.answers == [Answer(200, "second")]


@pytest.mark.django_db
def test_a_key_belongs_to_one_request():
    user = make_user("script")
    once("k", user=user, fingerprint="f", act=lambda: Answer(200, ""))

    with pytest.raises(KeyReused), transaction.atomic():
        once("k", user=user, fingerprint="g", act=lambda: Answer(200, ""))
    assert connection.is_usable()
