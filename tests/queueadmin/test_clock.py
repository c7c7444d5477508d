"""How far the host's clock is off the database's, and how well that can be known."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from queueadmin import clock

pytestmark = pytest.mark.django_db


@pytest.fixture
def host(monkeypatch):
    """Set by how much the host's clock is off when the question goes and the answer comes."""

    def set_errors(asked, answered):
        errors = iter([asked, answered])
        now = lambda: timezone.now() + timedelta(seconds=next(errors))  # noqa: E731
        monkeypatch.setattr(clock, "timezone", SimpleNamespace(now=now))

    connection.ensure_connection()
    return set_errors


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no clock")
@pytest.mark.parametrize("error", [-10.0, 10.0])
def test_an_error_is_corrected(host, error):
    host(error, error)

    assert clock.synchronise().total_seconds() == pytest.approx(-error, abs=2)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no clock")
@pytest.mark.parametrize(("asked", "answered"), [(-0.2, 4.0), (-4.0, 1.0), (-0.01, 0.01)])
def test_a_slow_answer_is_no_error(host, asked, answered):
    host(asked, answered)

    assert clock.synchronise() == timedelta()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL has a clock")
def test_on_sqlite_the_hosts_clock_is_the_truth(host):
    host(10.0, 10.0)

    assert clock.synchronise() == timedelta()
