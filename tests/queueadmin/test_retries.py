"""What follows a failure, with the clock in the test's hand."""

from datetime import UTC, datetime, timedelta

import dramatiq
import pytest

from queueadmin import ledger
from queueadmin.exceptions import PermanentError, RetryAfter
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import DeathCause, JobState
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db

START = datetime(2026, 5, 5, 10, 0, tzinfo=UTC)


def attempt_times(time_machine, steps):
    """Return the seconds after START at which attempts were due, running each exactly then."""
    due = []
    for _ in range(steps):
        job = Job.objects.get()
        if job.state not in (JobState.WAITING, JobState.RETRYING):
            break
        time_machine.move_to(job.due_at - timedelta(milliseconds=1), tick=False)
        if job.state == JobState.RETRYING:
            assert run_jobs() == 0, "an attempt was early"
        time_machine.move_to(job.due_at, tick=False)
        assert run_jobs() == 1
        due.append((job.due_at - START).total_seconds())
    return due


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ("order-processing", [0, 5, 15]),
        ("order-routing", [0, 5, 15]),
        ("vendor-fallback", [0, 3, 9]),
        ("order-expiry", [0, 5]),
        ("whatsapp-messages", [0, 5, 15, 35, 75]),
        ("email-notifications", [0, 2, 6]),
        ("sms-notifications", [0, 2, 6]),
        ("payment-reminders", [0, 5, 15]),
        ("booking-reminders", [0, 5, 15]),
        ("credit-score-calculation", [0, 5, 15]),
        ("credit-reconciliation", [0, 5, 15]),
        ("image-processing", [0, 5, 15]),
        ("report-generation", [0, 5, 15]),
        ("daily-reports", [0, 10]),
        ("data-cleanup", [0, 5, 15]),
    ],
)
def test_attempts_are_due_exactly_as_the_policy_says_then_a_dead_letter(
    broker, time_machine, queue, expected
):
    @dramatiq.actor(queue_name=queue, broker=broker)
    def fail():
        raise ConnectionError("provider away")

    time_machine.move_to(START, tick=False)
    fail.send()

    assert attempt_times(time_machine, 10) == expected
    job = Job.objects.get()
    assert (job.state, job.attempts) == (JobState.DEAD, len(expected))
    letter = DeadLetter.objects.get()
    assert (letter.died_by, letter.attempts) == (DeathCause.ATTEMPTS_EXHAUSTED, len(expected))


def test_the_coming_attempts_are_foretold(broker, time_machine, settings):
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def fail():
        raise ConnectionError("provider away")

    time_machine.move_to(START, tick=False)
    fail.send()
    run_jobs()

    policy = settings.QUEUEADMIN["QUEUES"]["whatsapp-messages"]
    times = Job.objects.get().upcoming(policy.schedule_ms())
    assert [(at - START).total_seconds() for at in times] == [5, 15, 35, 75]


def _raises(error):
    def fail():
        raise error

    return fail


def test_a_provider_that_says_when_is_obeyed(broker, time_machine):
    dramatiq.actor(_raises(RetryAfter("throttled", delay_ms=90_000)), queue_name="q", broker=broker)
    time_machine.move_to(START, tick=False)
    broker.actors["fail"].send()

    run_jobs()

    assert Job.objects.get().due_at == START + timedelta(seconds=90)
    assert Attempt.objects.get().delay_ms == 90_000


def test_dramatiqs_own_retry_is_obeyed(broker, time_machine):
    dramatiq.actor(_raises(dramatiq.Retry("later", delay=7_000)), queue_name="q", broker=broker)
    time_machine.move_to(START, tick=False)
    broker.actors["fail"].send()

    run_jobs()

    assert Job.objects.get().due_at == START + timedelta(seconds=7)


@pytest.mark.parametrize(
    ("options", "error", "attempts", "cause"),
    [
        ({"throws": KeyError}, KeyError("x"), 1, DeathCause.REJECTED),
        ({"throws": (KeyError, OSError)}, OSError("x"), 1, DeathCause.REJECTED),
        ({}, PermanentError("x"), 1, DeathCause.REJECTED),
        ({"max_retries": 0}, KeyError("x"), 1, DeathCause.ATTEMPTS_EXHAUSTED),
        ({"max_retries": 4}, KeyError("x"), 5, DeathCause.ATTEMPTS_EXHAUSTED),
        (
            {"retry_when": lambda retries, error: retries < 2},
            KeyError("x"),
            3,
            DeathCause.ATTEMPTS_EXHAUSTED,
        ),
    ],
)
def test_options_of_plain_dramatiq_actors_win_over_the_policy(
    broker, time_machine, options, error, attempts, cause
):
    dramatiq.actor(_raises(error), queue_name="order-processing", broker=broker, **options)
    time_machine.move_to(START, tick=False)
    broker.actors["fail"].send()

    attempt_times(time_machine, 10)

    letter = DeadLetter.objects.get()
    assert (letter.attempts, letter.died_by) == (attempts, cause)


def test_the_message_wins_over_the_actor(broker, time_machine):
    dramatiq.actor(_raises(KeyError("x")), queue_name="q", broker=broker, max_retries=9)
    time_machine.move_to(START, tick=False)
    broker.actors["fail"].send_with_options(max_retries=1)

    attempt_times(time_machine, 10)

    assert DeadLetter.objects.get().attempts == 2


def test_a_queue_without_policy_waits_as_plain_dramatiq_does(broker, time_machine):
    dramatiq.actor(_raises(KeyError("x")), queue_name="q", broker=broker)
    time_machine.move_to(START, tick=False)
    broker.actors["fail"].send()

    run_jobs()

    job = Job.objects.get()
    assert job.max_attempts == 21
    # Dramatiq: once to twice its 15 s.
    assert timedelta(seconds=15) <= job.due_at - START <= timedelta(seconds=30)


def test_the_actor_named_for_exhausted_retries_is_told(broker):
    told = []

    @dramatiq.actor(queue_name="q", broker=broker)
    def tell(message, facts):
        told.append((message["actor_name"], facts))

    dramatiq.actor(
        _raises(KeyError("x")),
        queue_name="q",
        broker=broker,
        max_retries=0,
        on_retry_exhausted="tell",
    )
    broker.actors["fail"].send()

    run_jobs()

    assert told == [("fail", {"retries": 0, "max_retries": 0})]


def test_a_requeued_job_that_was_too_old_gets_a_new_age(broker, time_machine):
    ran = []

    @dramatiq.actor(queue_name="q", broker=broker, max_age=60_000)
    def late():
        ran.append(1)

    time_machine.move_to(START, tick=False)
    message = late.send()
    time_machine.shift(61)
    run_jobs()
    assert DeadLetter.objects.get().died_by == DeathCause.EXPIRED

    ledger.requeue([message.message_id])
    run_jobs()

    assert ran == [1]
    assert Job.objects.get().state == JobState.COMPLETED
