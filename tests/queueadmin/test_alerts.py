"""Staff are told once when trouble begins, and once when it is over."""

import json
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from django.core import mail
from django.utils import timezone
from django_apscheduler.models import DjangoJob
from pytest_httpserver import HTTPServer

from queueadmin import alert_messages, alerts, conditions, queues
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted
from queueadmin.models import Alert, AlertMessage, AuditEntry, Job, Queue, Worker
from queueadmin.schedules import Schedule
from queueadmin.states import AlertKind, DeadLetterStatus, GroupStatus, JobState, MessageState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_dead_letter, make_group, make_job, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_url")]
ANNA, HOOK_SECRET = "anna@example.com", "a secret of enough characters"


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.SITE_URL = "https://orders.example/"
    settings.QUEUEADMIN = {
        "ALERT_EMAILS": [ANNA],
        "ALERT_DEAD_LETTERS": 4,
        "ALERT_QUEUE_DEAD_LETTERS": 0,
        "ALERT_WEBHOOK_SECRET": HOOK_SECRET,
        "ALERT_WEBHOOK_NETWORKS": ["127.0.0.0/8"],
        "RESOLVER": "config.queueadmin.Resolver",
    }


@pytest.fixture
def lookout(worker: Worker) -> alerts.Lookout:
    return alerts.Lookout()


@pytest.fixture
def worker(db: None) -> Worker:
    at = timezone.now() + timedelta(days=365)
    return Worker.objects.create(
        id="w", host="w", pid=1, started_at=at, seen_at=at, threads=1,
        queues=["whatsapp-messages", "alerts", "default"],
    )  # fmt: skip


def look(lookout: alerts.Lookout) -> int:
    """Look as often as time passes, so that every condition is due."""
    lookout._due.clear()
    return lookout.look()


def open_kinds() -> list[str]:
    return sorted(Alert.objects.filter(closed_at=None).values_list("kind", flat=True))


def test_dead_letters_that_pile_up_are_told_once_and_their_end_once(
    lookout: alerts.Lookout,
) -> None:
    letters = [make_dead_letter() for _number in range(4)]

    assert [look(lookout), look(lookout)] == [1, 0]
    run_jobs()
    assert [sent.subject for sent in mail.outbox] == ["[queues] dead letters pile up"]
    assert "4 dead letters wait for a decision" in mail.outbox[0].body
    assert "https://orders.example/admin/queueadmin/alert/" in mail.outbox[0].body

    # Between the levels nothing is told: it would come and go with every dead letter.
    for letter in letters[:1]:
        type(letter).objects.filter(pk=letter.pk).update(status=DeadLetterStatus.RECOVERED)
    assert look(lookout) == 0
    assert Alert.objects.get().text.startswith("3 dead letters")

    type(letter).objects.update(status=DeadLetterStatus.RECOVERED)
    assert [look(lookout), look(lookout)] == [1, 0]
    run_jobs()
    assert mail.outbox[1].subject == "[queues] back to normal: dead letters pile up"
    assert len(mail.outbox) == 2


def test_a_queue_has_a_limit_of_its_own(lookout: alerts.Lookout, settings: Any) -> None:
    settings.QUEUEADMIN = {"ALERT_DEAD_LETTERS": 0, "ALERT_QUEUE_DEAD_LETTERS": 2}
    make_dead_letter()
    make_dead_letter(job={"queue": "mail"}, queue="mail")
    assert look(lookout) == 0

    make_dead_letter(job={"queue": "mail"}, queue="mail")

    assert look(lookout) == 1
    assert Alert.objects.get().subject == "mail"


def test_what_is_snoozed_is_not_waiting_for_a_decision(lookout: alerts.Lookout) -> None:
    letters = [make_dead_letter() for _number in range(5)]
    type(letters[0]).objects.filter(pk=letters[0].pk).update(snoozed_at=now())
    type(letters[0]).objects.filter(pk=letters[1].pk).update(snoozed_at=now())

    assert look(lookout) == 0


@pytest.mark.parametrize("first_writes", [True, False])
def test_two_that_find_the_same_tell_of_it_once(worker: Worker, first_writes: bool) -> None:
    for _number in range(4):
        make_dead_letter()
    both = [alerts.Lookout(), alerts.Lookout()]
    readings = list(conditions.dead_letters())
    kinds = {AlertKind.DEAD_LETTERS}
    # Both have looked before either writes; the lease of the first has run out meanwhile.
    changes = []
    for one in both if first_writes else reversed(both):
        alerts.leases.release(alerts.LEASE, both[0]._holder)
        alerts.leases.release(alerts.LEASE, both[1]._holder)
        changes.append(one._apply(kinds, readings))

    assert changes == [1, 0]
    assert AlertMessage.objects.count() == 1


def test_an_insert_that_comes_second_tells_nothing(worker: Worker) -> None:
    reading = conditions.Reading(kind=AlertKind.NO_WORKER, text="none")

    assert alerts.record(reading)
    assert not alerts.record(reading)

    alert = Alert.objects.get()
    stale = Alert.objects.get()
    assert alerts._close(alert) is not None
    assert alerts._close(stale) is None


def test_whoever_lost_the_lease_changes_nothing(worker: Worker) -> None:
    for _number in range(4):
        make_dead_letter()
    slow, other = alerts.Lookout(), alerts.Lookout()
    readings = list(conditions.dead_letters())
    assert other.look() == 1
    type(make_dead_letter()).objects.update(status=DeadLetterStatus.RECOVERED)
    look(other)

    assert slow._apply({AlertKind.DEAD_LETTERS}, readings) == 0
    assert open_kinds() == []


def test_a_regressed_group_is_told_until_it_is_resolved_again(lookout: alerts.Lookout) -> None:
    group = make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    assert open_kinds() == ["regressed"]
    assert Alert.objects.get().subject == group.label

    type(group).objects.update(status=GroupStatus.RESOLVED)
    look(lookout)
    assert open_kinds() == []


def test_a_queue_whose_oldest_job_waits_too_long_is_stuck(lookout: alerts.Lookout) -> None:
    job = make_job(due_at=now() - timedelta(minutes=16))
    look(lookout)
    assert open_kinds() == ["stuck"]

    Job.objects.filter(pk=job.pk).update(state=JobState.COMPLETED)
    look(lookout)
    assert open_kinds() == []


def test_a_paused_queue_is_not_stuck_but_paused_for_long(lookout: alerts.Lookout) -> None:
    make_job(due_at=now() - timedelta(minutes=90))
    queues.pause("whatsapp-messages", by=None, reason="provider is down")
    look(lookout)
    assert open_kinds() == []

    Queue.objects.update(paused_at=now() - timedelta(minutes=61))
    look(lookout)
    assert open_kinds() == ["paused"]
    assert "provider is down" in Alert.objects.get().text


def test_an_open_breaker_is_told_at_once(lookout: alerts.Lookout) -> None:
    Queue.objects.create(
        name="whatsapp-messages",
        breaker_state=Queue.Breaker.OPEN,
        breaker_changed_at=now(),
        breaker_cause="9 of 10 attempts: Timeout",
    )
    look(lookout)
    assert open_kinds() == ["breaker"]

    Queue.objects.update(breaker_state=Queue.Breaker.PROBING)
    look(lookout)
    assert open_kinds() == ["breaker"]


class Passing:
    """A monotonic clock that the test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    clock = Passing()
    monkeypatch.setattr(alerts, "time", clock)
    return clock


def test_what_is_sudden_must_last_before_it_is_told(
    lookout: alerts.Lookout, worker: Worker, passing: Passing
) -> None:
    Worker.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    for seconds, expected in ((0, []), (59, []), (60, ["no_worker"])):
        passing.seconds = seconds
        look(lookout)
        assert open_kinds() == expected


def test_what_comes_and_goes_is_not_told(
    lookout: alerts.Lookout, worker: Worker, passing: Passing
) -> None:
    for seconds in range(0, 300, 30):
        passing.seconds = seconds
        is_away = seconds % 60 == 0
        ago = timedelta(hours=1 if is_away else -1)
        Worker.objects.update(seen_at=timezone.now() - ago)
        look(lookout)

    assert not Alert.objects.exists()


def test_jobs_that_no_living_worker_consumes_are_told(
    lookout: alerts.Lookout, passing: Passing
) -> None:
    make_job(queue="reports")
    look(lookout)
    passing.seconds = 60
    look(lookout)

    assert open_kinds() == ["unconsumed"]
    assert Alert.objects.get().queue == "reports"


def test_a_broker_that_does_not_answer_is_told(
    lookout: alerts.Lookout, passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise BrokerUnavailable("refused")

    with monkeypatch.context() as patch:
        patch.setattr(dramatiq.get_broker().transport, "size", fail)  # type: ignore[attr-defined]
        look(lookout)
        passing.seconds = 60
        look(lookout)
    assert open_kinds() == ["broker"]

    monkeypatch.setattr(dramatiq.get_broker().transport, "size", lambda queue: 0)  # type: ignore[attr-defined]
    look(lookout)
    assert open_kinds() == []


def test_a_scheduler_is_silent_when_an_occasion_is_overdue(
    lookout: alerts.Lookout, settings: Any
) -> None:
    sweep = Schedule(actor="queueadmin.recover", every=timedelta(minutes=5))
    settings.QUEUEADMIN = {"SCHEDULES": {"sweep": sweep}}
    at = timezone.now()
    DjangoJob.objects.create(id="sweep", next_run_time=at - timedelta(minutes=3), job_state=b"")
    look(lookout)
    assert open_kinds() == ["scheduler"]

    DjangoJob.objects.update(next_run_time=at + timedelta(minutes=5))
    look(lookout)
    assert open_kinds() == []


def test_a_condition_that_fails_neither_silences_others_nor_closes_its_alerts(
    worker: Worker,
) -> None:
    alerts.record(conditions.Reading(kind=AlertKind.BROKER, text="away"))
    for _number in range(4):
        make_dead_letter()

    def fail() -> list[conditions.Reading]:
        raise ZeroDivisionError

    broken = conditions.Condition((AlertKind.BROKER,), fail)
    assert alerts.Lookout((broken, *conditions.CONDITIONS[:1])).look() == 1

    assert open_kinds() == ["broker", "dead_letters"]


def test_what_opens_at_one_look_is_told_in_one_message(lookout: alerts.Lookout) -> None:
    for _number in range(3):
        make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    run_jobs()

    (sent,) = mail.outbox
    assert sent.subject == "[queues] 3 new alerts"
    assert sent.to == [ANNA]


def test_a_line_break_in_a_name_adds_no_header(lookout: alerts.Lookout) -> None:
    Queue.objects.create(
        name="a\r\nBcc: eve@example.com",
        breaker_state=Queue.Breaker.OPEN,
        breaker_cause="x",
    )
    look(lookout)
    run_jobs()

    (sent,) = mail.outbox
    assert sent.recipients() == [ANNA]
    assert sent.subject == "[queues] breaker opened (a Bcc: eve@example.com)"


@pytest.fixture
def hook(httpserver: HTTPServer, settings: Any) -> HTTPServer:
    url = httpserver.url_for("/hook")
    settings.QUEUEADMIN = {
        **settings.QUEUEADMIN,
        "ALERT_EMAILS": [],
        "ALERT_WEBHOOKS": [url],
    }
    return httpserver


def test_a_webhook_gets_the_events_as_json(lookout: alerts.Lookout, hook: HTTPServer) -> None:
    hook.expect_request("/hook", method="POST").respond_with_data("")
    make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    run_jobs()

    ((request, _answer),) = hook.log
    (event,) = json.loads(request.get_data())["events"]
    alert = Alert.objects.get()
    assert (event["event"], event["alert"], event["kind"]) == ("opened", alert.pk, "regressed")
    assert event["text"] == alert.text
    assert event["url"] == "https://orders.example/admin/queueadmin/alert/"
    assert AlertMessage.objects.get().state == MessageState.SENT


def test_a_webhook_that_fails_is_tried_again_by_its_job(
    lookout: alerts.Lookout, hook: HTTPServer
) -> None:
    hook.expect_ordered_request("/hook").respond_with_data("", status=503)
    hook.expect_ordered_request("/hook").respond_with_data("")
    make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    run_jobs()

    message = AlertMessage.objects.get()
    assert (message.state, message.attempts) == (MessageState.WAITING, 1)
    assert "503" in message.error
    job = Job.objects.get(actor=alert_messages.ACTOR)
    assert (job.state, job.queue) == (JobState.RETRYING, "alerts")

    assert message.not_before is not None
    with time_machine.travel(message.not_before + timedelta(seconds=1), tick=True):
        assert alert_messages.send(message.pk)
        # The job comes later, and finds it sent.
        assert not alert_messages.send(message.pk)
    assert AlertMessage.objects.get().state == MessageState.SENT
    assert len(hook.log) == 2


def test_a_message_that_somebody_is_sending_is_left_to_them(lookout: alerts.Lookout) -> None:
    make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    message = AlertMessage.objects.get()
    AlertMessage.objects.update(not_before=now() + timedelta(minutes=1))

    with pytest.raises(alert_messages.NotYet):
        alert_messages.send(message.pk)
    assert mail.outbox == []


def test_what_the_settings_no_longer_name_is_not_sent(
    lookout: alerts.Lookout, settings: Any
) -> None:
    make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    settings.QUEUEADMIN = {}

    assert alert_messages.send(AlertMessage.objects.get().pk)
    assert AlertMessage.objects.get().state == MessageState.FAILED
    assert mail.outbox == []


def test_an_alert_is_acknowledged_once_with_permission_and_audit(lookout: alerts.Lookout) -> None:
    make_group(status=GroupStatus.REGRESSED, regressed_at=now())
    look(lookout)
    pk = Alert.objects.get().pk
    anna, eve = make_user("anna", "acknowledge_alert"), make_user("eve", "view_alert")

    with pytest.raises(NotPermitted):
        alerts.acknowledge(pk, by=eve)
    assert alerts.acknowledge(pk, by=anna, reason="I look")
    assert not alerts.acknowledge(pk, by=anna)

    entry = AuditEntry.objects.get(verb="acknowledge")
    assert (entry.target_type, entry.target_id, entry.reason) == ("alert", str(pk), "I look")
    assert open_kinds() == ["regressed"]


def test_old_alerts_go_and_open_ones_stay(lookout: alerts.Lookout) -> None:
    long_ago = now() - timedelta(days=400)
    common = {"kind": "stuck", "text": "x", "opened_at": long_ago}
    Alert.objects.create(subject="a", closed_at=long_ago, **common)
    Alert.objects.create(subject="b", **common)

    assert alerts.prune() == 1
    assert Alert.objects.get().subject == "b"
