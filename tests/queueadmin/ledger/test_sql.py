"""Statements in few round trips, and which of them PostgreSQL keeps the plan of."""

import dramatiq
import pytest
from django.db import OperationalError, connection

from queueadmin.ledger import sql

pytestmark = pytest.mark.django_db


@pytest.fixture
def on_postgresql():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has neither of it.")


@pytest.fixture(params=[1, None])
def threshold(request, on_postgresql):
    connection.ensure_connection()
    before = connection.connection.prepare_threshold
    connection.connection.prepare_threshold = request.param
    yield request.param
    connection.connection.prepare_threshold = before


def kept_plans():
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def test_an_enqueue_is_planned_once_where_the_project_allows_it(threshold, broker):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    for name in ("anna", "ben", "carla", "dora"):
        greet.send(name)

    kept = [text for text in kept_plans() if text.startswith("INSERT INTO queueadmin_job")]
    assert len(kept) == (0 if threshold is None else 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("threshold", [1], indirect=True)
def test_a_pooler_that_forgets_statements_is_named_and_met_once(
    threshold, broker, monkeypatch, caplog
):
    @dramatiq.actor(queue_name="greetings", broker=broker)
    def greet(name): ...

    monkeypatch.setattr(sql._Preparing, "is_possible", True)
    for name in ("anna", "ben", "carla"):
        greet.send(name)
    with connection.cursor() as cursor:
        # One by one: the driver notices when all are gone.
        cursor.execute("SELECT name FROM pg_prepared_statements")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DEALLOCATE {name}")

    with pytest.raises(OperationalError, match="prepare_threshold to None"):
        greet.send("dora")
    assert "DATABASE_PREPARE_THRESHOLD=0" in caplog.text

    greet.send("emil")
    assert broker.transport.size("greetings") == 4


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
