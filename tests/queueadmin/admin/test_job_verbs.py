"""Cancel, reschedule and run now from the pages of jobs."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from queueadmin.models import AuditEntry, Job, UniqueKey
from queueadmin.states import JobState
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

LIST = "/admin/queueadmin/job/"
VERBS = {"cancel": "cancel_job", "reschedule": "reschedule_job", "run-now": "retry_job"}


@pytest.fixture
def olga(db: None) -> Client:
    """Staff who may do everything with jobs."""
    client = Client()
    client.force_login(make_user("olga", "view_job", *VERBS.values()))
    return client


def act(name: str) -> str:
    return reverse("admin:queueadmin_job_act", args=[name])


def page(job: Job) -> str:
    return reverse("admin:queueadmin_job_change", args=[quote(job.pk)])


def confirm(client: Client, name: str, *found: Job, **fields: Any) -> Any:
    ids = json.dumps([job.pk for job in found])
    return client.post(act(name), {"ids": ids, "confirmed": "yes", **fields}, follow=True)


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_asks_first_and_a_look_changes_nothing(olga: Client, name: str) -> None:
    job = make_job(state=JobState.SCHEDULED)

    response = olga.get(act(name), {"ids": json.dumps([job.pk]), "back": "detail"})

    assert response.status_code == 200
    assert response.context["expected"].done == 1
    assert page(job) in response.content.decode()
    job.refresh_from_db()
    assert job.state == JobState.SCHEDULED
    assert not AuditEntry.objects.exists()


def test_a_confirmed_cancel_is_done_told_and_recorded(olga: Client) -> None:
    job = make_job(state=JobState.SCHEDULED)

    response = confirm(olga, "cancel", job, back="detail", reason="order withdrawn")

    assert response.redirect_chain == [(page(job), 302)]
    assert told(response) == ["Cancelled 1 job."]
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    entry = AuditEntry.objects.get()
    assert (entry.user_name, entry.verb, entry.reason) == ("olga", "cancel", "order withdrawn")
    assert "olga cancelled it" in response.content.decode()


def test_pressed_twice_it_is_done_once_and_says_why(olga: Client) -> None:
    job = make_job(state=JobState.SCHEDULED)
    confirm(olga, "cancel", job)

    response = confirm(olga, "cancel", job)

    assert told(response) == ["Skipped 1: already cancelled."]
    assert AuditEntry.objects.count() == 1


def test_a_running_job_shows_that_a_cancel_was_requested(olga: Client) -> None:
    job = make_job(state=JobState.ACTIVE, started_at=timezone.now(), worker="web1:1")

    response = confirm(olga, "cancel", job, back="detail")

    assert told(response)[0].startswith("Requested the cancel of 1 job")
    html = response.content.decode()
    assert "cancel requested" in html
    assert "ends as cancelled unless it completes before" in html
    assert "cancel requested" in olga.get(LIST).content.decode()
    refusals = {str(item["verb"].name): str(item["refusal"]) for item in response.context["verbs"]}
    assert set(refusals.values()) == {"A cancel was requested."}


def test_a_job_is_rescheduled_by_date_and_time(olga: Client) -> None:
    job = make_job(state=JobState.RETRYING)
    to = timezone.localtime(timezone.now() + timedelta(days=3)).replace(second=0, microsecond=0)

    response = confirm(
        olga, "reschedule", job, to_0=to.strftime("%Y-%m-%d"), to_1=to.strftime("%H:%M")
    )

    assert told(response) == ["Rescheduled 1 job."]
    job.refresh_from_db()
    assert (job.state, job.due_at) == (JobState.RETRYING, to)


@pytest.mark.parametrize(
    ("date", "clock", "problem"),
    [
        ("2020-01-01", "10:00", "This time has passed"),
        ("2099-01-01", "10:00", "more than 10 years away"),
        ("2099-13-01", "10:00", "Enter a valid date"),
        ("", "", "This field is required"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused_beside_its_field(
    olga: Client, date: str, clock: str, problem: str
) -> None:
    job = make_job(state=JobState.SCHEDULED)

    response = confirm(olga, "reschedule", job, to_0=date, to_1=clock)

    assert problem in response.content.decode()
    before = job.due_at
    job.refresh_from_db()
    assert job.due_at == before


def test_a_retrying_job_runs_now(olga: Client) -> None:
    job = make_job(state=JobState.RETRYING, due_at=timezone.now() + timedelta(days=1))

    response = confirm(olga, "run-now", job)

    assert told(response) == ["1 job is due now."]
    job.refresh_from_db()
    assert job.state == JobState.WAITING


@pytest.mark.parametrize("action", ["cancel", "reschedule", "run_now"])
def test_a_list_action_asks_about_the_chosen_ones(olga: Client, action: str) -> None:
    chosen = [make_job(state=JobState.SCHEDULED).pk, make_job(state=JobState.COMPLETED).pk]
    make_job(state=JobState.SCHEDULED)

    response = olga.post(LIST, {"action": action, "_selected_action": chosen})

    assert sorted(json.loads(response.context["ids"])) == sorted(chosen)
    assert response.context["expected"].done == 1
    assert dict(response.context["skipped"]) == {"already completed": 1}


@override_settings(QUEUEADMIN={"BULK_LIMIT": 2})
def test_one_action_is_bounded_and_says_so(olga: Client) -> None:
    chosen = [make_job(state=JobState.SCHEDULED).pk for _number in range(3)]

    response = olga.post(LIST, {"action": "cancel", "_selected_action": chosen})

    assert response.context["left_out"] == 1
    confirm(olga, "cancel", *Job.objects.all())
    assert Job.objects.filter(state=JobState.CANCELLED).count() == 2


@pytest.mark.parametrize("name", VERBS)
def test_who_lacks_the_permission_is_refused_at_every_door(viewer: Client, name: str) -> None:
    job = make_job(state=JobState.SCHEDULED)

    assert confirm(viewer, name, job).status_code == 403
    assert viewer.get(act(name), {"ids": json.dumps([job.pk])}).status_code == 403
    forged = {"action": name.replace("-", "_"), "_selected_action": [job.pk]}
    assert viewer.post(LIST, forged).status_code == 403
    html = viewer.get(page(job)).content.decode()
    # Said once, and every button refers to it.
    assert html.count("You lack the permission for this.") == 1
    assert html.count('disabled aria-describedby="qa-why-2"') == len(VERBS)
    job.refresh_from_db()
    assert job.state == JobState.SCHEDULED
    assert not AuditEntry.objects.exists()


def test_one_permission_gives_one_verb(db: None) -> None:
    client = Client()
    client.force_login(make_user("ben", "view_job", "reschedule_job"))
    job = make_job(state=JobState.SCHEDULED)

    assert client.get(act("reschedule"), {"ids": json.dumps([job.pk])}).status_code == 200
    assert confirm(client, "cancel", job).status_code == 403
    assert confirm(client, "run-now", job).status_code == 403


@pytest.mark.parametrize("ids", ["", "x", "[]", "{}", "[1]", '[""]', '["a\\u0000"]', "[" * 9999])
def test_a_forged_list_of_ids_is_refused(olga: Client, ids: str) -> None:
    assert olga.post(act("cancel"), {"ids": ids, "confirmed": "yes"}).status_code == 400


@pytest.mark.parametrize("key", ["orders/12,13", 'a"b<c>&d', "nightly_2024", "ü" * 64])
def test_an_id_chosen_by_the_caller_can_be_cancelled(olga: Client, key: str) -> None:
    job = make_job(id=key, state=JobState.SCHEDULED)
    shown = olga.get(page(job).replace("?", "%3F")).context

    response = olga.post(
        act("cancel"), {"ids": shown["ids_of_job"], "confirmed": "yes", "back": "detail"}
    )

    assert response.status_code == 302
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_a_verb_nobody_knows_has_no_page(olga: Client) -> None:
    assert olga.get(act("explode"), {"ids": '["a"]'}).status_code == 404


def test_a_dead_job_says_why_nothing_can_be_done_here(olga: Client) -> None:
    html = olga.get(page(make_dead_letter().job)).content.decode()

    # Said once, and every button refers to it.
    assert html.count("its dead letter says what can be done") == 1
    assert html.count('disabled aria-describedby="qa-why-2"') == len(VERBS)


def test_the_page_names_the_unique_key(olga: Client) -> None:
    job = make_job(unique_key="order:<12>")

    assert "order:&lt;12&gt;" in olga.get(page(job)).content.decode()


def test_a_requeue_that_meets_a_holder_names_it(db: None) -> None:
    client = Client()
    client.force_login(make_user("anna", "view_deadletter", "requeue_deadletter"))
    letter = make_dead_letter(job={"unique_key": "k"})
    UniqueKey.objects.create(actor=letter.actor, key="k", job_id="holder-1")

    response = client.post(
        reverse("admin:queueadmin_deadletter_act", args=["requeue"]),
        {"ids": letter.pk, "confirmed": "yes"},
        follow=True,
    )

    assert told(response) == [
        "Skipped 1: unique key held by another job.",
        "Unique keys are held by job holder-1.",
    ]
