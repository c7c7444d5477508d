from datetime import timedelta
from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from time_machine import TimeMachineFixture

from queueadmin import drift, queues, recurring
from queueadmin.models import (
    AuditEntry,
    HourStatistic,
    Job,
    MinuteStatistic,
    Queue,
    ScheduleOccasion,
    Worker,
)
from queueadmin.policies import Policy, per_minute
from queueadmin.schedules import Schedule
from queueadmin.states import JobState
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_group, make_job

pytestmark = pytest.mark.usefixtures("broker")
ROOT = "/admin/queueadmin/"
OVERVIEW, QUEUES, WORKERS, SCHEDULES = (
    f"{ROOT}{name}/" for name in ("overview", "queue", "worker", "schedulecontrol")
)
SETTINGS: dict[str, Any] = {
    "QUEUES": {"mail": Policy(concurrency=5, rate=per_minute(60)), "reports": Policy()},
    "SCHEDULES": {
        "nightly": Schedule(actor="queueadmin.recover", cron="0 6 * * *"),
        "sweep": Schedule(actor="queueadmin.recover", every=timedelta(minutes=5)),
    },
}


@pytest.fixture(autouse=True)
def configured() -> Any:
    with override_settings(QUEUEADMIN=SETTINGS):
        yield


def make_worker(**fields: Any) -> Worker:
    at = timezone.now()
    values: dict[str, Any] = {
        "id": "web1:4121:x",
        "host": "web1",
        "pid": 4121,
        "started_at": at,
        "seen_at": at,
        "threads": 8,
        "queues": ["mail", "reports"],
        "memory_bytes": 2**27,
    }
    return Worker.objects.create(**(values | fields))


def do(client: Client, model: str, key: str, name: str, **fields: Any) -> Any:
    address = reverse(f"admin:queueadmin_{model}_do", args=[key, name])
    return client.post(address, {"confirmed": "yes", **fields}, follow=True)


def test_the_overview_says_first_whether_all_is_well(lead: Client) -> None:
    make_worker()
    assert "and all are well" in lead.get(OVERVIEW).content.decode()

    make_job(queue="mail")
    queues.pause("mail", by=None, reason="provider is down")
    html = lead.get(OVERVIEW).content.decode()

    assert "queues needs attention: mail (paused, 1 waiting)" in html
    assert "provider is down" in html


def test_waiting_jobs_that_nobody_consumes_need_attention(lead: Client) -> None:
    make_worker(queues=["reports"])
    make_job(queue="mail")

    assert "no worker consumes it" in lead.get(OVERVIEW).content.decode()


def test_the_worst_comes_first_and_the_rest_by_name(lead: Client) -> None:
    make_worker()
    make_job(queue="reports")
    queues.pause("reports", by=None, reason="later")
    Queue.objects.create(name="zoo", breaker_state=Queue.Breaker.OPEN)

    for address in (OVERVIEW, QUEUES):
        context = lead.get(address).context
        names = [row.name for row in context["rows"]]
        assert names[:2] == ["zoo", "reports"]
        assert names[2:] == sorted(names[2:])
        assert "first of all zoo (breaker open)" in context["sentence"]


def test_what_is_usual_stands_beside_the_queue_in_one_query(
    lead: Client,
    django_assert_num_queries: DjangoAssertNumQueries,
    time_machine: TimeMachineFixture,
) -> None:
    time_machine.move_to(timezone.now().replace(minute=40))
    hour = (timezone.now() - timedelta(minutes=15)).replace(minute=0, second=0, microsecond=0)
    for day in range(3, 20):
        for actor in ("send", "resend"):
            HourStatistic.objects.create(
                hour=hour - timedelta(days=day), queue="mail", actor=actor, completed=99,
                dead=1, run_4=100,
            )  # fmt: skip
        if day < 7:  # too few days to say what is usual
            HourStatistic.objects.create(
                hour=hour - timedelta(days=day), queue="reports", actor="make", completed=99
            )

    with django_assert_num_queries(1):
        found = drift.usual_by_queue()
    html = lead.get(QUEUES).content.decode()

    assert found == {"mail": "1 % fail, half of the runs take under 65 ms"}
    assert f"usual for this hour: {found['mail']}" in html
    assert html.count("usual for this hour") == 1


def test_the_console_comes_first_in_the_side_bar_of_its_pages(lead: Client) -> None:
    for address in (OVERVIEW, f"{ROOT}job/", f"{ROOT}assignmentrule/add/", "/health/"):
        html = lead.get(address).content.decode()
        bar = html[html.index('id="nav-sidebar"') :]
        places = [bar.index(f"{ROOT}{name}/") for name in ("overview", "queue", "worker", "job")]
        assert places == sorted(places)
        assert "app-orders" not in bar[: places[0]]


def test_every_number_leads_to_the_list_it_counts(lead: Client) -> None:
    for _number in range(3):
        make_job(queue="mail")
    make_job(queue="mail", state=JobState.RETRYING)

    rows = lead.get(OVERVIEW).context["rows"]

    (mail,) = (row for row in rows if row.name == "mail")
    for _state, url, count, _is_more in mail.links:
        assert lead.get(url).context["cl"].result_count == count


def test_the_overview_takes_a_fixed_number_of_queries(
    lead: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_group()
    make_worker()
    with django_assert_num_queries(22):
        lead.get(OVERVIEW)
    for number in range(21):
        Queue.objects.create(name=f"queue {number}")
        make_group()
        make_worker(id=f"w:{number}:x", pid=number)
        make_job(queue=f"queue {number}")

    with django_assert_num_queries(22):
        lead.get(OVERVIEW)


def test_the_overview_shows_what_the_minutes_counted(lead: Client) -> None:
    MinuteStatistic.objects.create(
        minute=timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=1),
        queue="mail",
        actor="send",
        shard=1,
        completed=120,
        dead=40,
        run_4=160,
        wait_2=160,
    )

    html = lead.get(OVERVIEW).content.decode()

    assert 'data-label="done/min">2<' in html
    assert "25 %" in html
    assert "65\N{NO-BREAK SPACE}ms / 96\N{NO-BREAK SPACE}ms" in html
    assert "qa-spark" in html


def test_what_the_reader_may_do_is_listed(viewer: Client) -> None:
    permissions = dict(viewer.get(OVERVIEW).context["permissions"])

    assert permissions["Can view job"]
    assert not permissions["Can requeue dead letters"]


def test_a_queue_is_paused_resumed_and_limited_from_its_row(lead: Client) -> None:
    html = do(lead, "queue", "mail", "pause", reason="provider").content.decode()
    assert "Paused." in html
    assert "lead: provider" in html
    do(lead, "queue", "mail", "limit", concurrency="2", starts="10", window="1")
    do(lead, "queue", "mail", "resume", reason="back")

    limits = queues.limits("mail")
    assert (limits.concurrency, limits.concurrency_from) == (2, "console")
    assert str(limits.rate) in lead.get(QUEUES).content.decode()
    assert list(AuditEntry.objects.order_by("pk").values_list("verb", "user_name")) == [
        ("pause", "lead"),
        ("limit", "lead"),
        ("resume", "lead"),
    ]


def test_half_a_rate_is_refused_in_words(lead: Client) -> None:
    html = do(lead, "queue", "mail", "limit", starts="10").content.decode()

    assert "A rate needs both" in html
    assert not Queue.objects.exists()


def test_a_queue_that_nobody_knows_has_no_verbs(lead: Client) -> None:
    for key in ("unknown", "%00"):
        address = f"{QUEUES}{key}/do/pause/"
        assert lead.post(address, {"confirmed": "yes", "reason": "x"}).status_code == 302

    assert not Queue.objects.exists()


def test_workers_show_what_they_run(lead: Client) -> None:
    job = make_job(state=JobState.ACTIVE)
    run = {
        "job": job.pk,
        "queue": "mail",
        "actor": "send",
        "attempt": 2,
        "started_at": (timezone.now() - timedelta(seconds=12)).isoformat(),
    }
    make_worker(running=[run])
    make_worker(id="gone:1:x", host="gone", pid=1, seen_at=timezone.now() - timedelta(minutes=5))

    html = lead.get(WORKERS).content.decode()

    assert "1 worker process is alive, 1 of 8 threads are busy." in html
    assert reverse("admin:queueadmin_job_change", args=[job.pk.replace("-", "-")]) in html
    assert "lost" in html


def test_a_worker_is_quieted_resumed_and_replaced(lead: Client) -> None:
    worker = make_worker()
    for name, wish in (("quiet", "quiet"), ("resume", ""), ("stop", "stop")):
        do(lead, "worker", worker.pk, name)
        worker.refresh_from_db()
        assert worker.wish == wish


def test_schedules_say_when_in_words_and_how_it_went(lead: Client) -> None:
    job = make_job(state=JobState.COMPLETED)
    ScheduleOccasion.objects.create(schedule="sweep", due_at=timezone.now(), job_id=job.pk)

    html = lead.get(SCHEDULES).content.decode()

    assert "every day at 06:00" in html
    assert "every 5 min" in html
    assert "completed" in html


def test_a_schedule_is_run_paused_and_resumed(lead: Client) -> None:
    from tests.queueadmin.test_recurring import declare

    declare("queueadmin.recover")
    do(lead, "schedulecontrol", "sweep", "run")
    do(lead, "schedulecontrol", "sweep", "pause", reason="migration")
    assert "migration" in lead.get(SCHEDULES).content.decode()
    do(lead, "schedulecontrol", "sweep", "resume")

    assert Job.objects.get().actor == "queueadmin.recover"
    verbs = list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["run now", "pause", "resume"]


@pytest.mark.parametrize(
    ("model", "key", "name"),
    [
        ("queue", "mail", "pause"),
        ("queue", "mail", "resume"),
        ("queue", "mail", "limit"),
        ("queue", "mail", "close-breaker"),
        ("worker", "web1:4121:x", "quiet"),
        ("worker", "web1:4121:x", "stop"),
        ("schedulecontrol", "sweep", "run"),
        ("schedulecontrol", "sweep", "pause"),
    ],
)
def test_a_forged_verb_is_refused(viewer: Client, model: str, key: str, name: str) -> None:
    make_worker()

    assert do(viewer, model, key, name, reason="x").status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("address", [OVERVIEW, QUEUES, WORKERS, SCHEDULES])
def test_who_may_not_view_sees_nothing(stranger: Client, viewer: Client, address: str) -> None:
    assert stranger.get(address).status_code == 403
    html = viewer.get(address).content.decode()
    assert viewer.get(address).status_code == 200
    assert "<form method" not in html.split('id="content-main"')[1] or "disabled" in html


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_as_text(lead: Client, text: str) -> None:
    stored = text.replace("\0", "")
    name = stored[:100] or "x"
    queues.pause(name, by=None, reason=stored)
    recurring.pause("sweep", by=None, reason=stored)
    make_group(error_class=stored[:200], error_message=stored)
    make_dead_letter()
    make_worker(
        host=stored[:100],
        release=stored[:100],
        queues=[stored],
        running=[{"job": stored, "queue": stored, "actor": stored, "attempt": None}, 7],
    )

    for address in (OVERVIEW, QUEUES, WORKERS, SCHEDULES):
        assert_text_only(lead.get(address))
