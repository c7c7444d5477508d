from datetime import timedelta
from urllib.parse import quote as url_quote

import pytest
from django.contrib.admin.utils import quote
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from queueadmin.models import Attempt, Job
from queueadmin.policies import Policy, exponential
from queueadmin.resolver import Link, Resolver
from queueadmin.states import JobState, Outcome
from tests.queueadmin.rows import TRACEBACK, make_dead_letter, make_job

LIST = "/admin/queueadmin/job/"


def page(job: Job) -> str:
    return reverse("admin:queueadmin_job_change", args=[quote(job.pk)])


def shown(client: Client, query: str = "") -> set[str]:
    response = client.get(f"{LIST}{query}")
    assert response.status_code == 200
    return {row.pk for row in response.context["cl"].result_list}


@pytest.mark.parametrize(
    "query",
    [
        "?state=completed",
        "?queue=sms-notifications",
        "?actor=send_sms",
        "?q=abcd12",
        "?q=ABCD12",
        "?q=send_s",
        "?q=orders.order:7",
    ],
)
def test_tabs_filters_and_search_find_the_one(viewer: Client, query: str) -> None:
    make_job()
    one = make_job(
        id="abcd1234-0000",
        queue="sms-notifications",
        actor="send_sms",
        subject="orders.order:7",
        state=JobState.COMPLETED,
    )

    assert shown(viewer, query) == {one.pk}


def test_every_state_has_a_tab_with_its_count(viewer: Client) -> None:
    for state in JobState:
        make_job(state=state)

    tabs = viewer.get(LIST).context["cl"].tabs

    assert {str(tab.label): tab.count for tab in tabs} == {
        "all": len(JobState),
        **{str(state.label): 1 for state in JobState},
    }


def test_the_list_takes_as_many_queries_for_thirty_rows_as_for_one(
    viewer: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _number in range(30):
        make_job()
    with django_assert_num_queries(15):
        viewer.get(LIST)
    Job.objects.exclude(pk=Job.objects.values("pk")[:1]).delete()

    with django_assert_num_queries(15):
        viewer.get(LIST)


@pytest.mark.parametrize("state", JobState.values)
def test_the_page_of_every_state_says_where_the_job_is(viewer: Client, state: str) -> None:
    now = timezone.now()
    job = make_job(state=state, started_at=now, finished_at=now, worker="web1:1")

    response = viewer.get(page(job))

    assert response.status_code == 200
    assert response.context["sentence"]


def test_a_parked_job_says_why_no_worker_runs_it(viewer: Client) -> None:
    at = timezone.now()
    job = make_job(
        state=JobState.SCHEDULED,
        due_at=at + timedelta(seconds=15),
        parked_at=at,
        error_class="ActorNotFound",
        error_message="No worker knows the actor 'from_the_future'.",
    )

    sentence = viewer.get(page(job)).context["sentence"]

    assert sentence.startswith("No worker can run it since ")
    assert "ActorNotFound" in sentence
    assert "from_the_future" in sentence


@override_settings(QUEUEADMIN={"QUEUES": {"q": Policy(attempts=5, backoff=exponential(5))}})
def test_a_retrying_job_says_when_it_runs_next(viewer: Client) -> None:
    due = timezone.now().replace(microsecond=0) + timedelta(minutes=5)
    job = make_job(
        queue="q", state=JobState.RETRYING, attempts=2, due_at=due, error_class="Timeout"
    )

    response = viewer.get(page(job))

    assert response.context["upcoming"] == [
        due,
        due + timedelta(seconds=20),
        due + timedelta(seconds=60),
    ]
    later = f"{due + timedelta(seconds=20):%H:%M:%S}, {due + timedelta(seconds=60):%H:%M:%S}"
    assert later in response.content.decode()


def test_attempts_are_shown_newest_first_with_their_stacks(viewer: Client) -> None:
    job = make_job(state=JobState.RETRYING, attempts=2)
    for number in (1, 2):
        Attempt.objects.create(
            job=job,
            dispatch=number,
            number=number,
            outcome=Outcome.RETRYING,
            started_at=timezone.now(),
            duration_ms=1500,
            delay_ms=5000,
            error_class="Timeout",
            traceback=TRACEBACK,
        )

    response = viewer.get(page(job))

    assert [row.attempt.number for row in response.context["attempts"]] == [2, 1]
    html = response.content.decode()
    assert "1 library frame" in html
    assert "next after 5.0 s" in html


def test_a_dead_job_leads_to_its_dead_letter(viewer: Client) -> None:
    letter = make_dead_letter()

    html = viewer.get(page(letter.job)).content.decode()

    assert reverse("admin:queueadmin_deadletter_change", args=[letter.pk]) in html


def test_parent_and_children_lead_to_each_other(viewer: Client) -> None:
    parent = make_job()
    child = make_job(parent=parent.pk)

    assert page(child) in viewer.get(page(parent)).content.decode()
    assert page(parent) in viewer.get(page(child)).content.decode()


@pytest.mark.parametrize("key", ["orders/12", "a b?c#d", "nightly_2024", "ü" * 64, "x" * 64])
def test_an_id_chosen_by_the_caller_has_a_page(viewer: Client, key: str) -> None:
    job = make_job(id=key)

    assert viewer.get(url_quote(page(job), safe="/%")).status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"args": "x", "kwargs": [], "options": 7}',
        b'{"args": ["\\ud800 \\u0000 \\u202e"], "kwargs": {"<b>": "</pre><script>"}}',
        b'{"args": [NaN, Infinity]}',
        b"[" * 100_000,
        b'{"args": [' + b'"x",' * 200_000 + b"1]}",
    ],
    ids=["empty", "bytes", "list", "null", "types", "marks", "nan", "deep", "large"],
)
def test_a_broken_payload_breaks_no_page(viewer: Client, message: bytes) -> None:
    job = make_job(message=message)

    html = viewer.get(page(job)).content.decode()

    assert "<script>" not in html.replace('<script src="', "")
    assert "\u202e" not in html
    assert viewer.get(LIST).status_code == 200


def test_unreadable_bytes_are_shown_only_to_who_may_reveal(viewer: Client) -> None:
    job = make_job(message=b"password=hunter2")

    html = viewer.get(page(job)).content.decode()

    assert "hunter2" not in html
    assert "16 bytes kept" in html


class TalkativeResolver(Resolver):
    """Describes and links a job."""

    def describe(self, job: Job) -> str:
        return "Confirmation of order 12"

    def links(self, job: Job) -> list[Link]:
        return [Link("Order 12", "/orders/12/")]


class BrokenResolver(Resolver):
    """Fails wherever it is asked."""

    def describe(self, job: Job) -> str:
        raise RuntimeError("no such order")

    def mask(self, job: Job, name: str, value: object) -> object:
        raise RuntimeError("no such field")


@override_settings(QUEUEADMIN={"RESOLVER": f"{__name__}.TalkativeResolver"})
def test_the_hosts_words_and_links_stand_on_the_page(viewer: Client) -> None:
    html = viewer.get(page(make_job())).content.decode()

    assert "Confirmation of order 12" in html
    assert 'href="/orders/12/"' in html


@override_settings(QUEUEADMIN={"RESOLVER": f"{__name__}.BrokenResolver"})
def test_a_resolver_that_fails_hides_the_payload_and_nothing_else(viewer: Client) -> None:
    response = viewer.get(page(make_job()))

    assert response.status_code == 200
    assert "hunter2" not in response.content.decode()


def test_nobody_changes_a_job_by_form(anna: Client) -> None:
    job = make_job()

    assert anna.post(page(job), {"state": "completed"}).status_code == 405
    assert anna.post(f"{LIST}{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert anna.get(f"{LIST}add/").status_code == 403


def test_who_may_not_view_sees_nothing(stranger: Client) -> None:
    assert stranger.get(LIST).status_code == 403
    assert stranger.get(page(make_job())).status_code == 403


def test_a_job_that_is_gone_leads_back(viewer: Client) -> None:
    assert viewer.get(f"{LIST}gone/change/").status_code == 302
    assert viewer.get(f"{LIST}%00/change/").status_code == 302


def test_counting_and_paging_stop_at_a_bound(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueadmin.admin.lists.COUNT_LIMIT", 60)
    for _number in range(65):
        make_job()

    html = viewer.get(LIST).content.decode()

    assert "60+" in html
    assert "1–50 of 60+" in html
    assert len(shown(viewer, "?p=2")) == 10


def test_an_empty_list_teaches(viewer: Client) -> None:
    assert "appears here the moment its transaction commits" in viewer.get(LIST).content.decode()
    assert "Nothing matches these filters." in viewer.get(f"{LIST}?q=x").content.decode()


def test_the_stacks_of_several_attempts_have_names_of_their_own(viewer: Client) -> None:
    job = make_job(state=JobState.RETRYING)
    for number in (1, 2):
        Attempt.objects.create(
            job=job, dispatch=number, number=number, outcome=Outcome.RETRYING,
            started_at=timezone.now(), duration_ms=1, error_class="Error", traceback=TRACEBACK,
        )  # fmt: skip

    html = viewer.get(page(job)).content.decode()

    assert 'aria-label="Stack of attempt 1, dispatch 1"' in html
    assert 'aria-label="Stack of attempt 2, dispatch 2"' in html
