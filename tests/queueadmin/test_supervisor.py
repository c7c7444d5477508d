"""What the supervisor tells the ledger arrives, whatever has become of its connection."""

import subprocess
import sys
import time
from datetime import timedelta

import dramatiq
import pytest
from django.db import connection
from django.db.backends.signals import connection_created

from queueadmin import leases
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.scoreboard import Running, Scoreboard
from queueadmin.states import DeathCause, JobState
from queueadmin.supervisor import Supervisor, _Slot

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def supervisor():
    return Supervisor([], 1, 1, shutdown_seconds=1)


@pytest.fixture
def job(broker):
    """A job that runs in the process."""

    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def work(): ...

    return work.send().message_id


@pytest.fixture
def ended():
    """A process that has died."""
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    process.wait()
    return process


def end_what_was_kept():
    """End the connection without Django's knowledge, as a restart of the server does."""
    connection.ensure_connection()
    connection.connection.close()


def end_the_next():
    """End the next connection just after it was opened."""

    def end(connection, **_):
        connection_created.disconnect(end)
        connection.connection.close()

    connection.close()
    connection_created.connect(end, weak=False)


@pytest.fixture(params=[end_what_was_kept, end_the_next])
def break_connection(request):
    """Let the connection break before the report, or in the middle of it."""
    return request.param


def test_a_crash_is_counted(supervisor, job, ended, break_connection):
    board = Scoreboard.in_memory(1)
    board.enter(job, 1)
    break_connection()

    supervisor._tend(_Slot(process=ended, scoreboard=board))

    assert connection.connection is None
    found = Job.objects.get()
    assert (found.crashes, found.dispatch, found.state) == (1, 2, JobState.WAITING)


def test_a_job_that_ran_too_long_is_recorded(supervisor, job, ended, break_connection):
    now = time.monotonic()
    break_connection()

    supervisor._end_overdue(ended, [Running(job, 1, now - 5, now - 1)])

    assert connection.connection is None
    assert DeadLetter.objects.get().died_by == DeathCause.TIME_LIMIT
    assert Attempt.objects.get().error_class == "HardTimeLimitExceeded"


@pytest.mark.every_provider
def test_the_dead_processes_lease_is_given_to_others(supervisor, broker, ended, break_connection):
    leases.acquire("dispatcher", "host:1:x", timedelta(minutes=1))
    broker.transport.heartbeat("host:1:x")
    board = Scoreboard.in_memory(1)
    board.sign("host:1:x")
    break_connection()

    supervisor._tend(_Slot(process=ended, scoreboard=board, was_killed=True))

    assert not leases.is_held("dispatcher")
    assert broker.transport.dead_workers(60_000) == ["host:1:x"]
