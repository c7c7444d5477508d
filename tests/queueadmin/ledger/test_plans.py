"""How the databases look for the rows of a batch: by their ids, however many others wait."""

from datetime import timedelta

import pytest
from django.db import connection

from queueadmin import clock, ledger
from queueadmin.models import Job
from queueadmin.states import JobState, Outcome

pytestmark = pytest.mark.django_db

MANY = 20_000


def completed(job, at):
    return ledger.Ending(
        job=job,
        dispatch=1,
        state=JobState.COMPLETED,
        outcome=Outcome.COMPLETED,
        attempt=1,
        started_at=at,
        finished_at=at,
    )


def plan_of(statement, parameters):
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        if not is_sqlite:
            # As for a large table, of which none needs to be made here.
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {'QUERY PLAN' if is_sqlite else ''} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_a_batch_of_outcomes_is_found_by_its_ids_and_not_among_all_that_wait():
    at = clock.now()
    executed = []

    def note(execute, statement, parameters, many, context):
        executed.append((statement, parameters))
        return execute(statement, parameters, many, context)

    with connection.execute_wrapper(note):
        ledger.commit([completed("a", at)])
        ledger.mark_active([("a", 1, at, "host:1")])

    plans = [plan_of(*each) for each in executed if each[0].startswith("UPDATE queueadmin_job")]
    assert len(plans) == 2
    for plan in plans:
        assert "queueadmin_job_pkey" in plan or "sqlite_autoindex_queueadmin_job_1" in plan
        assert "queueadmin_job_unfinished" not in plan
        assert "queueadmin_job_listed" not in plan


def enqueue(numbers, message=b"{}", due_at=None):
    """Add waiting jobs, each a moment later than the one before."""
    at = clock.now() - timedelta(hours=1)
    ledger.insert(
        [
            ledger.NewJob(
                id=f"{number:06}",
                queue="q",
                actor="act",
                message=message,
                enqueued_at=at + timedelta(milliseconds=number),
                due_at=due_at,
            )
            for number in numbers
        ]
    )


@pytest.fixture
def on_postgresql():
    """The tests are about what PostgreSQL does before it has analysed a table again."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is told by its indexes alone")


@pytest.fixture
def knows_ended_ones(on_postgresql):
    """As PostgreSQL knows the table, there are only jobs that have ended, and not many."""
    at = clock.now()
    ended = {"state": JobState.COMPLETED, "queue": "q", "actor": "act", "message": b"{}"}
    Job.objects.bulk_create(
        Job(pk=f"ended-{number}", enqueued_at=at, due_at=at, **ended) for number in range(1_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE queueadmin_job")


def read_by(act):
    """Return what `act` returns, and how many jobs the database read for it."""
    asked = (
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) "
        "FROM pg_stat_xact_user_tables WHERE relname = 'queueadmin_job'"
    )
    with connection.cursor() as cursor:
        cursor.execute(asked)
        (before,) = cursor.fetchone()
        result = act()
        cursor.execute(asked)
        return result, cursor.fetchone()[0] - before


def test_a_batch_of_outcomes_looks_up_each_job_once(knows_ended_ones):
    # Few enough to be read as a whole, if it were not said how few are wanted.
    enqueue(range(5_000))
    at = clock.now()
    endings = [completed(f"{number:06}", at) for number in range(20)]

    committed, read = read_by(lambda: ledger.commit(endings))

    assert len(committed.accepted) == 20
    assert read < 100


def test_what_is_due_is_taken_from_the_front_and_not_sorted(knows_ended_ones):
    due = clock.now() + timedelta(hours=1)
    enqueue(range(5_000), due_at=due)

    parcels, read = read_by(lambda: ledger.promote_due(due, 50))

    assert len(parcels) == 50
    assert read < 500


def test_a_step_of_what_waits_reads_its_own_jobs_only(knows_ended_ones):
    enqueue(range(5_000))
    steps = ledger.in_state(JobState.WAITING, clock.now() + timedelta(hours=1), 10)
    next(steps)

    step, read = read_by(lambda: next(steps))

    assert len(step) == 10
    assert read < 100


def test_what_is_not_confirmed_is_taken_from_the_front_and_not_sorted(on_postgresql):
    enqueue(range(MANY), b"x" * 300)

    parcels, read = read_by(lambda: ledger.unconfirmed(clock.now() + timedelta(hours=1), 50))

    assert [parcel.job for parcel in parcels] == [f"{number:06}" for number in range(50)]
    assert read < 500
