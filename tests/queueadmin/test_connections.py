"""What a job leaves on its thread's connections does not reach the next job, nor anybody else."""

import sys
import threading
import time

import django.db.backends.base.base
import django.db.backends.postgresql.base
import django.db.backends.sqlite3.base
import django.db.transaction
import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from dramatiq.middleware import Middleware, SkipMessage, TimeLimitExceeded

from queueadmin import testing
from queueadmin.exceptions import Cancelled
from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeathCause, JobState

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def elsewhere():
    """A connection of somebody else to the same database."""
    other = connection.copy()
    if other.vendor == "postgresql":
        with other.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'")
    yield other
    other.close()


def seen_from(other):
    """Return the names of the groups that are committed, without those of a migration."""
    with other.cursor() as cursor:
        cursor.execute("SELECT name FROM auth_group")
        return {name for (name,) in cursor.fetchall() if not name.startswith("Queues: ")}


@pytest.fixture
def kept(monkeypatch):
    """Connections are kept for as long as they work."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)


@pytest.fixture
def make(broker):
    """An actor that does what a worker's next job would: writes a row."""

    @dramatiq.actor(queue_name="q", broker=broker)
    def make(name):
        Group.objects.create(name=name)

    return make


# --- Interrupts -----------------------------------------------------------------------
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL has no lock of the whole")
def test_an_interrupt_while_a_job_waits_for_the_lock_leaves_the_lock_to_others(
    broker, start_worker, elsewhere, caplog
):
    has_begun, is_locked = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="q", broker=broker, time_limit=2_000, max_retries=0)
    def write():
        has_begun.set()
        is_locked.wait(20)
        with transaction.atomic():
            Group.objects.create(name="of the interrupted job")

    write.send()
    start_worker(threads=1)
    assert has_begun.wait(15)
    with elsewhere.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        is_locked.set()
        wait_until(lambda: "Time limit exceeded" in caplog.text)
        cursor.execute("ROLLBACK")

    # Its worker's recorder is the first who wants to write.
    wait_until(DeadLetter.objects.exists)
    assert DeadLetter.objects.get().died_by == DeathCause.TIME_LIMIT
    Group.objects.create(name="of somebody else")
    assert seen_from(elsewhere) == {"of somebody else"}


class Strike:
    """Raises an error at the n-th line that Django executes for the sake of a transaction."""

    _FILES = frozenset(
        module.__file__
        for module in (
            django.db.transaction,
            django.db.backends.base.base,
            django.db.backends.sqlite3.base,
            django.db.backends.postgresql.base,
        )
    )
    # Holds a lock and calls nothing meanwhile: no place where Python would deliver an interrupt.
    _SPARED = "allow_thread_sharing"

    def __init__(self, at, error):
        self.left, self.error = at, error

    def __enter__(self):
        sys.settrace(self)

    def __exit__(self, *error):
        sys.settrace(None)

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if code.co_filename not in self._FILES or code.co_name == self._SPARED:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise self.error
        return self


# What an interrupted `connect` has opened, nobody closes.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("error", "is_connected"), [(TimeLimitExceeded, True), (Cancelled, False)])
def test_wherever_an_interrupt_strikes_a_transaction_the_next_job_is_committed(
    broker, make, kept, elsewhere, error, is_connected
):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def write(at):
        connection.ensure_connection()
        if not is_connected:
            connection.close()
        with Strike(at, error), transaction.atomic():
            Group.objects.create(name=f"struck {at}")
        completed.append(at)

    completed, at = [], 0
    while not completed:
        at += 1
        write.send(at)
        make.send(f"after {at}")
        testing.run_jobs()

    seen = seen_from(elsewhere)
    assert [line for line in range(1, at + 1) if f"after {line}" not in seen] == []
    assert at > 20


def test_an_interrupt_that_the_actor_catches_counts_too(broker, start_worker, kept):
    @dramatiq.actor(queue_name="q", broker=broker, time_limit=200)
    def patient():
        connection.ensure_connection()
        try:
            while True:
                time.sleep(0.01)
        except TimeLimitExceeded:
            found.append(connection.connection is not None)

    @dramatiq.actor(queue_name="q", broker=broker)
    def look():
        found.append(connection.connection is not None)

    found = []
    patient.send()
    start_worker(threads=1)
    wait_until(lambda: len(found) == 1)
    look.send()

    wait_until(lambda: len(found) == 2)
    assert found == [True, False]


def test_what_a_job_does_without_an_interrupt_costs_no_connection(broker, start_worker, kept):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def work(number):
        Group.objects.create(name=str(number))
        with transaction.atomic():
            Group.objects.count()
        used.append(connection.connection)
        if number == 1:
            raise ValueError(number)

    used = []
    for number in range(3):
        work.send(number)
    start_worker(threads=1)

    wait_until(lambda: len(used) == 3)
    assert used[0] is used[1] is used[2]


# --- Actors ---------------------------------------------------------------------------
def enter_a_block():
    transaction.atomic().__enter__()
    Group.objects.create(name="lost")


def begin_by_hand():
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    Group.objects.create(name="lost")


def turn_autocommit_off():
    transaction.set_autocommit(False)
    Group.objects.create(name="lost")


def close_inside_of_a_block():
    transaction.atomic().__enter__()
    connection.close()


WAYS = [enter_a_block, begin_by_hand, turn_autocommit_off, close_inside_of_a_block]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", [None, ValueError, SkipMessage])
def test_a_transaction_that_an_actor_leaves_open_is_rolled_back_and_told(
    broker, make, elsewhere, way, end, caplog
):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def careless():
        way()
        if end is not None:
            raise end

    job = careless.send().message_id
    testing.run_jobs()

    assert "careless left a transaction open on default" in caplog.text
    assert job in caplog.text
    make.send("kept")
    testing.run_jobs()
    assert seen_from(elsewhere) == {"kept"}


@pytest.mark.parametrize("way", WAYS[:3])
def test_it_is_rolled_back_while_its_thread_has_nothing_else_to_do(
    broker, start_worker, elsewhere, way
):
    @dramatiq.actor(queue_name="q", broker=broker)
    def careless():
        way()

    careless.send()
    start_worker(threads=1)

    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)
    # The same name: PostgreSQL lets nobody else take it before the transaction has ended.
    with elsewhere.cursor() as cursor:
        cursor.execute("INSERT INTO auth_group (name) VALUES ('lost')")
    assert seen_from(elsewhere) == {"lost"}


def test_a_connection_of_the_actors_own_hides_not_that_of_its_thread(broker, make, elsewhere):
    @dramatiq.actor(queue_name="q", broker=broker)
    def careless():
        connection.ensure_connection()
        own = connection.copy()
        own.ensure_connection()
        own.close()
        enter_a_block()

    connection.close()
    careless.send()
    testing.run_jobs()
    make.send("kept")
    testing.run_jobs()

    assert seen_from(elsewhere) == {"kept"}


def test_a_connection_that_was_closed_without_djangos_knowledge_is_no_trouble(
    broker, start_worker, caplog
):
    @dramatiq.actor(queue_name="q", broker=broker)
    def careless():
        connection.ensure_connection()
        connection.connection.close()

    careless.send()
    start_worker(threads=1)

    wait_until(Job.objects.filter(state=JobState.COMPLETED).exists)
    assert "Unexpected failure" not in caplog.text


def test_a_transaction_around_the_whole_run_is_left_to_who_began_it(broker, make):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def interrupted():
        Group.objects.create(name="by the interrupted job")
        raise TimeLimitExceeded

    with transaction.atomic():
        Group.objects.create(name="by the test")
        interrupted.send()
        make.send("by the next job")
        testing.run_jobs()
        assert Group.objects.filter(name__startswith="by ").count() == 3
        transaction.set_rollback(True)

    assert not Group.objects.filter(name__startswith="by ").exists()


def test_a_projects_middleware_may_keep_a_transaction_around_a_job(broker, make, elsewhere):
    class Around(Middleware):
        def before_process_message(self, broker, message):
            self.block = transaction.atomic()
            self.block.__enter__()

        def after_process_message(self, broker, message, *, result=None, exception=None):
            self.block.__exit__(exception and type(exception), exception, None)

    broker.add_middleware(Around())
    make.send("kept")
    testing.run_jobs()

    assert seen_from(elsewhere) == {"kept"}


@pytest.fixture(params=["file", "memory"])
def second(request, tmp_path):
    """Another database of the project."""
    name = str(tmp_path / "second.sqlite3") if request.param == "file" else ":memory:"
    connections.settings["second"] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": {},
    }
    second = connections["second"]
    # Django's tests let no connection be opened but to the databases that they have prepared.
    second.ensure_connection = lambda: second.connection is not None or second.connect()
    with second.cursor() as cursor:
        cursor.execute("CREATE TABLE note (text varchar(20))")
    yield second
    # Django does not close one in memory.
    if second.connection is not None:
        second.connection.close()
        second.connection = None
    del connections["second"], connections.settings["second"]


@pytest.mark.parametrize("end", [None, TimeLimitExceeded])
def test_every_database_of_the_project_is_looked_after(broker, second, end):
    @dramatiq.actor(queue_name="q", broker=broker, max_retries=0)
    def careless():
        transaction.atomic("second").__enter__()
        write("lost")
        if end is not None:
            raise end

    @dramatiq.actor(queue_name="q", broker=broker)
    def good():
        with transaction.atomic("second"):
            write("kept")

    def write(text):
        with second.cursor() as cursor:
            cursor.execute("INSERT INTO note VALUES (%s)", [text])

    careless.send()
    testing.run_jobs()
    good.send()
    testing.run_jobs()

    assert Job.objects.get(actor="good").state == JobState.COMPLETED
    with second.cursor() as cursor:
        cursor.execute("SELECT text FROM note")
        assert cursor.fetchall() == [("kept",)]
