"""The probes, as a load balancer sees them."""

from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from queueadmin.brokers import RedisBroker
from queueadmin.models import Alert
from queueadmin.states import AlertKind
from tests.queueadmin.rows import make_user


@contextmanager
def a_database_that_is_away() -> Iterator[None]:
    def refuse(*_):
        raise OperationalError('connection to "db.internal", user "shop" refused')

    with connection.execute_wrapper(refuse):
        yield


# Without the mark for a database: a look at it would fail.
@pytest.mark.parametrize("method", ["get", "head"])
def test_a_process_that_answers_is_alive(client, method):
    answer = getattr(client, method)("/health/live")

    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert method == "head" or answer.content == b"ok\n"


@pytest.mark.parametrize("probe", ["live", "ready", ""])
def test_probes_change_nothing(client, probe):
    assert client.post(f"/health/{probe}").status_code == 405


@pytest.mark.django_db
def test_without_its_database_a_process_is_alive_but_not_ready(client):
    with a_database_that_is_away():
        assert client.get("/health/live").status_code == 200
        answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "reasons": [{"check": "database", "advice": "Start the database, or correct its address."}],
    }


@pytest.mark.django_db
def test_before_its_migrations_a_process_is_not_ready(client):
    MigrationRecorder.Migration.objects.filter(app="queueadmin").latest("pk").delete()
    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == [{"check": "database", "advice": "Run manage.py migrate."}]


@pytest.mark.django_db
def test_a_broker_that_is_away_takes_no_web_process_out_of_service(client):
    previous = dramatiq.get_broker()
    # Nobody listens on the port of discarded bytes.
    dramatiq.set_broker(RedisBroker(url="redis://127.0.0.1:9/0", namespace="away"))
    try:
        answer = client.get("/health/ready")
    finally:
        dramatiq.get_broker().close()
        dramatiq.set_broker(previous)

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})


@pytest.mark.django_db
def test_probes_need_no_log_in_and_start_no_session(client):
    assert not client.get("/health/ready").cookies


def test_probes_are_not_sent_to_https(client, settings):
    settings.SECURE_SSL_REDIRECT = True

    assert client.get("/orders/").status_code == 301
    assert client.get("/health/live").status_code == 200


@pytest.mark.django_db
def test_people_are_shown_what_is_wrong_and_what_to_do(client, broker):
    client.force_login(make_user("anna", "view_queue"))

    page = client.get("/health/")

    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    found = page.content.decode()
    for check in ("settings", "broker", "database", "clock", "workers", "versions", "scheduler"):
        assert f'<th scope="row">{check}</th>' in found
    assert "Start some: manage.py rundramatiq." in found
    assert "need attention" in found


@pytest.mark.django_db
def test_the_page_for_people_counts_the_open_alerts(client, broker):
    client.force_login(make_user("anna", "view_queue"))
    facts = {"kind": AlertKind.STUCK, "text": "x", "opened_at": timezone.now()}
    Alert.objects.create(subject="sms", **facts)
    Alert.objects.create(subject="mail", closed_at=timezone.now(), **facts)

    assert f"{AlertKind.STUCK.label} (1)" in client.get("/health/").content.decode()
    Alert.objects.update(closed_at=timezone.now())
    assert "none is open" in client.get("/health/").content.decode()


@pytest.mark.django_db
def test_the_page_for_people_is_for_who_may_see_queues(client):
    assert client.get("/health/").status_code == 302
    client.force_login(make_user("eve", "view_job"))

    assert client.get("/health/").status_code == 403


@pytest.mark.django_db
def test_without_a_database_the_page_for_people_answers_as_the_probe(client):
    client.force_login(make_user("anna", "view_queue"))
    with a_database_that_is_away():
        answer = client.get("/health/")

    assert (answer.status_code, answer.json()["ready"]) == (503, False)
