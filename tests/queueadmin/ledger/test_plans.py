"""How the databases look for the rows of a batch: by their ids, however many others wait."""

import pytest
from django.db import connection

from queueadmin import clock, ledger
from queueadmin.states import JobState, Outcome

pytestmark = pytest.mark.django_db


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
    ending = ledger.Ending(
        job="a",
        dispatch=1,
        state=JobState.COMPLETED,
        outcome=Outcome.COMPLETED,
        attempt=1,
        started_at=at,
        finished_at=at,
    )
    executed = []

    def note(execute, statement, parameters, many, context):
        executed.append((statement, parameters))
        return execute(statement, parameters, many, context)

    with connection.execute_wrapper(note):
        ledger.commit([ending])
        ledger.mark_active([("a", 1, at, "host:1")])

    plans = [plan_of(*each) for each in executed if each[0].startswith("UPDATE queueadmin_job")]
    assert len(plans) == 2
    for plan in plans:
        assert "queueadmin_job_pkey" in plan or "sqlite_autoindex_queueadmin_job_1" in plan
        assert "queueadmin_job_unfinished" not in plan
        assert "queueadmin_job_listed" not in plan
