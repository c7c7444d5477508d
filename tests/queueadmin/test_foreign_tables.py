"""The retry tables of the five systems this project unites, expressed as policies.

Each is verified attempt by attempt: jobs of an actor that always fails run with the clock
in the test's hand, are never early, and become a dead letter after the last attempt.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dramatiq
import pytest

from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.policies import Policy, explicit, exponential, fixed, per_minute
from queueadmin.states import JobState
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db

START = datetime(2026, 5, 5, 10, 0, tzinfo=UTC)


class Table(NamedTuple):
    """A queue of one of the systems, its policy, and when its attempts are due."""

    system: str
    queue: str
    policy: Policy
    #: Seconds after the enqueue.
    due: list[float]


TABLES = [
    # The ordering system with seven queues: 3 attempts from 5 s on, 5 for an outside API.
    *(
        Table("seven queues", queue, Policy(attempts=3, backoff=exponential(5)), [0, 5, 15])
        for queue in (
            "order-processing",
            "image-processing",
            "credit-score-calculation",
            "order-routing",
            "payment-reminders",
            "report-generation",
        )
    ),
    Table(
        "seven queues",
        "whatsapp-messages",
        Policy(attempts=5, backoff=exponential(5), concurrency=10, time_limit=30),
        [0, 5, 15, 35, 75],
    ),
    # The wholesale system with five queues, each with a table of its own.
    Table(
        "five queues",
        "whatsapp",
        Policy(attempts=3, backoff=exponential(2), concurrency=5, rate=per_minute(100)),
        [0, 2, 6],
    ),
    Table(
        "five queues",
        "orderExpiry",
        Policy(attempts=2, backoff=fixed(5), concurrency=3, rate=per_minute(50)),
        [0, 5],
    ),
    Table(
        "five queues",
        "vendorFallback",
        Policy(attempts=3, backoff=exponential(3), concurrency=2, rate=per_minute(20)),
        [0, 3, 9],
    ),
    Table(
        "five queues",
        "dailyReports",
        Policy(attempts=2, backoff=fixed(10), concurrency=1, rate=per_minute(10)),
        [0, 10],
    ),
    Table(
        "five queues",
        "creditReconciliation",
        Policy(attempts=3, backoff=exponential(5), concurrency=2, rate=per_minute(30)),
        [0, 5, 15],
    ),
    # The notification system: e-mail and WhatsApp alike.
    *(
        Table("notifications", queue, Policy(attempts=3, backoff=exponential(2)), [0, 2, 6])
        for queue in ("email-notifications", "whatsapp-notifications")
    ),
    # The retry and recovery system: a list of waits. It counts three retries in its words
    # and three attempts in its example, where the third failure is the last; with the
    # attempts as written the list's last wait is never used.
    Table(
        "retry and recovery", "jobs", Policy(attempts=3, backoff=explicit([5, 15, 45])), [0, 5, 20]
    ),
    Table(
        "retry and recovery",
        "jobs, three retries",
        Policy(attempts=4, backoff=explicit([5, 15, 45])),
        [0, 5, 20, 65],
    ),
    # The design study: three attempts, exponential from two seconds.
    Table("design study", "emails", Policy(attempts=3, backoff=exponential(2)), [0, 2, 6]),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.system}: {table.queue}")
def test_attempts_are_due_as_the_table_says_and_the_last_failure_is_a_dead_letter(
    table, broker, settings, time_machine
):
    queue = table.queue.replace(", ", "-").replace(" ", "-")
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": {queue: table.policy}}

    @dramatiq.actor(queue_name=queue, broker=broker)
    def fail():
        raise ConnectionError("provider away")

    time_machine.move_to(START, tick=False)
    fail.send()
    due = []
    while (job := Job.objects.get()).state in (JobState.WAITING, JobState.RETRYING):
        if job.state == JobState.RETRYING:
            time_machine.move_to(job.due_at - timedelta(milliseconds=1), tick=False)
            assert run_jobs() == 0, "an attempt was early"
        time_machine.move_to(job.due_at, tick=False)
        assert run_jobs() == 1
        due.append((job.due_at - START).total_seconds())

    assert due == table.due
    assert job.state == JobState.DEAD
    assert list(Attempt.objects.order_by("number").values_list("number", flat=True)) == list(
        range(1, len(due) + 1)
    )
    assert DeadLetter.objects.get().attempts == len(due)
