"""Jobs by the API: lists, details, verbs, and what is refused."""

from datetime import timedelta

import dramatiq
import pytest
from django.utils import timezone

from queueadmin import listing
from queueadmin.models import AuditEntry, DeadLetter, Job
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_job


@pytest.fixture
def greet(broker):
    @dramatiq.actor(queue_name="greetings", actor_name="greet", sensitive=["pin"])
    def greet(name: str, pin: str = "") -> None:
        """Never run here."""

    broker.declare_queue("greetings")
    return greet


def enqueue(call, **body):
    return call("POST", "queues/greetings/jobs/", {"actor": "greet", "args": ["Ada"], **body})


def test_a_job_is_enqueued_once_its_arguments_fit(call, greet):
    answer = enqueue(call, reason="by hand")

    assert answer.status_code == 201
    job = Job.objects.get(pk=answer.json()["id"])
    assert (job.state, job.queue, job.actor) == (JobState.WAITING, "greetings", "greet")
    entry = AuditEntry.objects.get(verb="enqueue", target_id=job.pk)
    assert (entry.user, entry.reason) == (call.user, "by hand")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"actor": "great"}, "actor"),
        ({"args": [7]}, "name"),
        ({"args": []}, "name"),
        ({"kwargs": {"nmae": "Ada"}}, "nmae"),
        ({"priority": "at once"}, "priority"),
        ({"at": "tomorrow"}, "at"),
        ({"at": "2300-01-01T00:00:00Z"}, "at"),
        ({"unique_key": "a\0b"}, "unique_key"),
        ({"options": {"throws": "X"}}, "options"),
        ({"args": "Ada"}, "args"),
        ({"args": ["x" * 1_100_000]}, "args"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_field(call, greet, body, field):
    answer = enqueue(call, **body)

    assert answer.status_code == 400
    problem = answer.json()
    assert field in [error["field"] for error in problem["errors"]]
    assert problem["detail"]
    assert not Job.objects.exists()


def test_an_actor_of_another_queue_is_refused(call, greet):
    answer = call("POST", "queues/whatsapp-messages/jobs/", {"actor": "greet", "args": ["Ada"]})

    assert answer.status_code == 400
    assert "belongs to the queue 'greetings'" in answer.json()["detail"]


def test_a_queue_that_nobody_knows_is_not_found(call, greet):
    assert call("POST", "queues/nowhere/jobs/", {"actor": "greet"}).status_code == 404


def test_the_holder_of_a_unique_key_is_answered(call, greet):
    first = enqueue(call, unique_key="one").json()
    second = enqueue(call, unique_key="one").json()

    assert second == {"id": first["id"], "is_new": False}
    assert Job.objects.count() == 1


def test_a_job_may_be_due_later(call, greet):
    at = (timezone.now() + timedelta(days=2)).replace(microsecond=0)
    job = enqueue(call, at=at.isoformat()).json()["id"]

    assert call("GET", f"jobs/{job}/").json()["state"] == "scheduled"
    moved = call("POST", f"jobs/{job}/reschedule/", {"to": (at + timedelta(days=1)).isoformat()})
    assert moved.json()["due_at"].startswith((at + timedelta(days=1)).date().isoformat())
    assert call("POST", f"jobs/{job}/retry/").json()["state"] == "waiting"
    assert call("POST", f"jobs/{job}/retry/").status_code == 409
    assert call("POST", f"jobs/{job}/cancel/").json() == {"cancelled": False}


def test_details_show_the_payload_masked(call, greet):
    job = enqueue(call, kwargs={"pin": "1234-5678"}).json()["id"]
    answer = call("GET", f"jobs/{job}/")

    assert "1234-5678" not in answer.content.decode()
    payload = answer.json()["payload"]
    assert payload["args"] == ["Ada"]
    assert payload["problem"] == ""


def test_a_payload_that_cannot_be_read_is_said_and_breaks_nothing(call):
    job = make_job(message=b"\xff\x00")
    payload = call("GET", f"jobs/{job.pk}/").json()["payload"]

    assert payload["args"] is None
    assert payload["problem"]


def test_failed_means_retrying_or_dead(call):
    letter = make_dead_letter()
    retrying = make_job(state=JobState.RETRYING)
    make_job()
    found = call("GET", "jobs/?state=failed").json()["results"]

    assert {job["id"] for job in found} == {letter.job_id, retrying.pk}


def test_pages_show_each_job_once_though_all_are_of_the_same_moment(call):
    at = timezone.now()
    expected = {make_job(enqueued_at=at).pk for _ in range(25)}
    path, seen = "jobs/?limit=10", []
    while path:
        page = call("GET", path).json()
        seen += [job["id"] for job in page["results"]]
        path = page["next"] and page["next"].split("/api/v1/")[1]

    assert len(seen) == 25
    assert set(seen) == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 400),
        ("limit=201", 400),
        ("limit=many", 400),
        ("state=lost", 400),
        ("since=yesterday", 400),
        ("stat=dead", 400),
        ("queue=a%00b", 400),
        ("cursor=nonsense", 404),
        ("cursor=cD1ub25zZW5zZQ%3D%3D", 404),
    ],
)
def test_a_wrong_parameter_is_named(call, query, status):
    answer = call("GET", f"jobs/?{query}")

    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"


def test_a_list_takes_the_same_number_of_queries_however_long_it_is(
    call, django_assert_num_queries
):
    for _ in range(3):
        make_dead_letter()
    with django_assert_num_queries(4):  # token, two of permissions, the page
        call("GET", "jobs/")
    with django_assert_num_queries(4):
        call("GET", "dead-letters/")


def test_only_jobs_that_have_ended_are_removed(call):
    waiting, done = make_job(), make_job(state=JobState.COMPLETED)
    letter = make_dead_letter()

    assert call("DELETE", f"jobs/{waiting.pk}/").status_code == 409
    assert call("DELETE", f"jobs/{letter.job_id}/").status_code == 409
    assert call("DELETE", f"jobs/{done.pk}/").status_code == 204
    assert call("DELETE", f"jobs/{done.pk}/").status_code == 404
    assert set(Job.objects.values_list("pk", flat=True)) == {waiting.pk, letter.job_id}


def test_a_dead_job_goes_with_its_dead_letter_once_that_is_closed(call):
    letter = make_dead_letter(status=DeadLetterStatus.PERMANENTLY_FAILED)

    assert call("DELETE", f"jobs/{letter.job_id}/").status_code == 204
    assert not DeadLetter.objects.exists()
    assert AuditEntry.objects.filter(verb="remove", target_id=letter.job_id).exists()


def test_to_retry_a_dead_job_requeues_its_dead_letter(call, broker):
    letter = make_dead_letter()
    answer = call("POST", f"jobs/{letter.job_id}/retry/", {"reason": "mended"})

    assert answer.json()["state"] == "waiting"
    letter.refresh_from_db()
    assert (letter.status, letter.requeued_by) == (DeadLetterStatus.REQUEUED, call.user)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_job_that_is_gone_is_not_found(call, broker, verb):
    assert call("POST", f"jobs/gone/{verb}/").status_code == 404


@pytest.fixture
def completed():
    """Completed jobs of three queues among others, newest first; three of each moment."""
    at = timezone.now()
    for number in range(16):
        make_job(
            id=f"job-{number:02d}",
            queue=f"q{number % 3}",
            state=JobState.DEAD if number % 4 == 3 else JobState.COMPLETED,
            enqueued_at=at - timedelta(minutes=number // 4),
        )
    rows = Job.objects.filter(state=JobState.COMPLETED).order_by("-enqueued_at", "pk")
    return list(rows.values_list("pk", flat=True))


def walk(call, page, direction):
    """Follow the pages from one on; return the last address and the ids of each."""
    shown = []
    while page:
        last = page
        answer = call("GET", page).json()
        shown.append([job["id"] for job in answer["results"]])
        page = (answer[direction] or "").partition("/api/v1/")[2]
    return last, shown


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 50])
def test_pages_of_completed_jobs_follow_one_another_in_both_directions(
    call, completed, limit, monkeypatch
):
    last, forth = walk(call, f"jobs/?state=completed&limit={limit}", "next")
    _first, back = walk(call, last, "previous")
    # As the pages are that are looked for among all jobs.
    monkeypatch.setattr(listing, "MOST_QUEUES", 0)
    plain_last, plain_forth = walk(call, f"jobs/?state=completed&limit={limit}", "next")
    _first, plain_back = walk(call, last, "previous")

    assert [job for page in forth for job in page] == completed
    assert (last, forth, back) == (plain_last, plain_forth, plain_back)


@pytest.mark.parametrize("further", [0, 60])
def test_a_page_of_completed_jobs_is_read_queue_by_queue_in_a_fixed_number_of_queries(
    call, completed, further, django_assert_num_queries
):
    for number in range(further):
        make_job(state=JobState.COMPLETED, queue=f"more-{number % 9}")
    address = "jobs/?state=completed&limit=3"
    following = call("GET", address).json()["next"].partition("/api/v1/")[2]

    for page in (address, following):
        # Token, permissions of the user and of groups; queues, ids, jobs.
        with django_assert_num_queries(6) as executed:
            call("GET", page)
        ids, rows = [query["sql"] for query in executed.captured_queries[-2:]]
        assert "UNION ALL" in ids
        assert '"queueadmin_job"."id" IN (' in rows
