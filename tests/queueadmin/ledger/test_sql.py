"""Statements in few round trips, and which of them PostgreSQL keeps the plan of."""

from types import SimpleNamespace

import dramatiq
import pytest
from django.db import connection

from queueadmin.ledger import sql

pytestmark = pytest.mark.django_db


@pytest.fixture
def on_postgresql():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has neither of it.")


@pytest.fixture(params=[True, False])
def is_allowed(request, on_postgresql, settings):
    """Whether statements may be prepared; on a connection that has prepared none."""
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "PREPARED_STATEMENTS": request.param}
    connection.ensure_connection()
    sql._prepares.clear()
    connection.connection._prepared.clear()
    yield request.param
    sql._prepares.clear()


def kept_plans():
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def test_an_enqueue_is_planned_once_where_the_project_allows_it(is_allowed, broker):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    before = len(kept_inserts())
    for number in range(8):
        greet.send(str(number))

    assert len(kept_inserts()) - before == int(is_allowed)
    # What others execute on the connection is none of the driver's business.
    assert connection.connection.prepare_threshold is None


def kept_inserts():
    return [text for text in kept_plans() if text.startswith("INSERT INTO queueadmin_job")]


def test_the_database_itself_is_told_from_a_pooler_before_it(on_postgresql):
    connection.ensure_connection()
    direct = connection.connection
    assert sql.is_direct(direct)

    # A pooler passes the question on and has told its client another number.
    pooled = SimpleNamespace(execute=direct.execute, info=SimpleNamespace(backend_pid=1))
    assert not sql.is_direct(pooled)


@pytest.mark.parametrize("is_usual", [False, True])
def test_inserts_that_need_no_other_take_place_in_their_order(is_usual):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE arrived (name varchar(9), place integer)")
        # SQLite numbers the rows as they come, PostgreSQL by what stands in the statement.
        place = "(SELECT 0)"
        if connection.vendor == "postgresql":
            cursor.execute("CREATE TEMPORARY SEQUENCE places")
            place = "nextval('places')"
    names = ["first", "second", "third", "fourth"]
    statement = f"INSERT INTO arrived (name, place) SELECT CAST(%s AS varchar(9)), {place}"

    sql.insert_all([(statement, [name]) for name in names], is_usual=is_usual)

    with connection.cursor() as cursor:
        order = "place" if connection.vendor == "postgresql" else "rowid"
        cursor.execute(f"SELECT name FROM arrived ORDER BY {order}")
        assert [name for (name,) in cursor.fetchall()] == names
        cursor.execute("DROP TABLE arrived")


def test_a_set_of_one_row_needs_no_json(on_postgresql):
    text, parameters = sql.row_set((("a", "text"), ("b", "integer")), [("x", 7)], "o")

    assert "json" not in text
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT a, b FROM {text}", parameters)
        assert cursor.fetchall() == [("x", 7)]
