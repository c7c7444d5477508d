"""A watcher looks and tells when no worker can."""

import json
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.core.management import call_command
from django.db import OperationalError
from django.utils import timezone

from queueadmin import alert_messages, alerts, scheduling, watching
from queueadmin.clock import now
from queueadmin.models import Alert, AlertMessage, Worker
from queueadmin.states import MessageState
from queueadmin.watching import Watcher

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_url")]


@pytest.fixture(autouse=True)
def configured(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.QUEUEADMIN = {"ALERT_EMAILS": ["anna@example.com"], "ALERT_OUTAGE_SECONDS": 0}
    # The test's own transaction must stay.
    monkeypatch.setattr(watching, "close_old_connections", lambda: None)
    monkeypatch.setattr(watching.connection, "close", lambda: None)


class Database:
    """What the watcher asks first; can be away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = False
        self._look = alerts.Lookout.look
        monkeypatch.setattr(alerts.Lookout, "look", lambda lookout: self.look(lookout))
        record = alerts.record
        monkeypatch.setattr(alerts, "record", lambda *a, **kw: self.ask() or record(*a, **kw))

    def ask(self) -> None:
        if self.is_away:
            raise OperationalError("connection refused")

    def look(self, lookout: alerts.Lookout) -> int:
        self.ask()
        return self._look(lookout)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


def later(seconds: float) -> Any:
    return time_machine.travel(timezone.now() + timedelta(seconds=seconds), tick=True)


def test_that_no_worker_lives_is_told_although_no_worker_can_send_it() -> None:
    watcher = Watcher()
    watcher.step()
    assert Alert.objects.get().kind == "no_worker"
    assert mail.outbox == []  # a job may still do it

    with later(61):
        watcher.step()
        watcher.step()

    assert [sent.subject for sent in mail.outbox] == ["[queues] no worker alive"]
    assert AlertMessage.objects.get().state == MessageState.SENT


def test_a_watcher_waits_while_a_worker_looks() -> None:
    other = alerts.Lookout()
    assert other.look() == 1

    Watcher().step()
    assert Alert.objects.count() == 1

    # The worker died: its lease runs out, and the end is told by the watcher.
    at = timezone.now() + timedelta(seconds=30)
    Worker.objects.create(id="w", host="w", pid=1, started_at=at, seen_at=at, threads=1)
    with time_machine.travel(at, tick=True):
        Watcher().step()
    assert Alert.objects.get(kind="no_worker").closed_at is not None


def test_a_database_that_is_away_is_told_from_memory_and_recorded_when_it_is_back(
    database: Database, settings: Any
) -> None:
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ALERT_OUTAGE_SECONDS": 60}
    at = timezone.now()
    Worker.objects.create(
        id="w", host="w", pid=1, started_at=at, seen_at=at + timedelta(days=1), threads=1
    )
    watcher = Watcher()
    database.is_away = True
    watcher.step()
    assert mail.outbox == []

    with later(61):
        watcher.step()
        watcher.step()
        (sent,) = mail.outbox
        assert sent.subject == "[queues] database in trouble"
        assert "connection refused" in sent.body

        database.is_away = False
        watcher.step()
        alert = Alert.objects.get(kind="database")
        assert alert.closed_at is not None
        assert alert.closed_at - alert.opened_at > timedelta(seconds=60)
        # Its end is a message as any other: of several watchers one makes it.
        (event,) = AlertMessage.objects.get().events
        assert (event["kind"], event["event"]) == ("database", "closed")


def test_a_short_outage_of_the_database_is_not_told(database: Database, settings: Any) -> None:
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "ALERT_OUTAGE_SECONDS": 60}
    watcher = Watcher()
    for seconds in (0, 40, 80):
        with later(seconds):
            database.is_away = seconds != 40
            watcher.step()

    assert mail.outbox == []
    assert not Alert.objects.filter(kind="database").exists()


def test_telling_of_the_database_is_tried_until_it_works(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher()
    database.is_away = True

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(alert_messages, "deliver", fail)
        watcher.step()
    watcher.step()
    watcher.step()

    assert len(mail.outbox) == 1


def test_a_message_is_given_up_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(alert_messages, "deliver", fail)
    message = AlertMessage.objects.create(
        channel="email", target="anna@example.com", events=[], created_at=now()
    )
    for hours in (1, 25, 26):
        with later(hours * 3600):
            alert_messages.send_overdue()

    message.refresh_from_db()
    assert (message.state, message.attempts) == (MessageState.FAILED, 2)


@pytest.fixture
def signals() -> Iterator[None]:
    """Give back the handlers that commands replace."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.usefixtures("signals")
def test_the_scheduler_watches_beside_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    is_watched = threading.Event()
    monkeypatch.setattr(Watcher, "step", lambda watcher: is_watched.set())
    monkeypatch.setattr(scheduling.Scheduler, "run", lambda scheduler: is_watched.wait(20))

    call_command("runscheduler", stdout=StringIO())

    assert is_watched.is_set()


@pytest.mark.usefixtures("signals")
def test_a_command_does_nothing_but_watch_until_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def step(watcher: Watcher) -> None:
        looks.append(1)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(watching, "LOOK_SECONDS", 0)
    monkeypatch.setattr(Watcher, "step", step)

    call_command("queueadmin", "watch")

    assert len(looks) == 2


def test_a_watcher_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def step(watcher: Watcher) -> None:
        looks.append(1)
        if len(looks) == 2:
            watcher.stop()
        raise ZeroDivisionError

    monkeypatch.setattr(watching, "LOOK_SECONDS", 0)
    monkeypatch.setattr(Watcher, "step", step)

    Watcher().run()

    assert len(looks) == 2


def test_alerts_are_listed_and_acknowledged_from_a_shell() -> None:
    at = now()
    alert = Alert.objects.create(kind="stuck", subject="mail", text="7 wait", opened_at=at)
    Alert.objects.create(kind="stuck", subject="b", text="x", opened_at=at, closed_at=at)
    out = StringIO()

    call_command("queueadmin", "alerts", "--format", "json", stdout=out)
    call_command("queueadmin", "acknowledge", str(alert.pk), "--reason", "on it", stdout=StringIO())

    assert [row["subject"] for row in json.loads(out.getvalue())] == ["mail", "b"]
    alert.refresh_from_db()
    assert alert.acknowledged_at is not None
