"""The newest jobs of a state, over all queues."""

from datetime import timedelta

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from queueadmin import listing
from queueadmin.clock import now
from queueadmin.models import Job
from queueadmin.states import JobState
from tests.queueadmin.rows import make_job, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def jobs() -> list[str]:
    """Completed jobs of three queues among others, newest first; two of the same moment."""
    at = now()
    for number in range(12):
        make_job(
            id=f"job-{number:02d}",
            queue=f"q{number % 3}",
            state=JobState.DEAD if number % 4 == 3 else JobState.COMPLETED,
            enqueued_at=at - timedelta(minutes=number // 2),
        )
    rows = Job.objects.filter(state=JobState.COMPLETED).order_by("-enqueued_at", "pk")
    return list(rows.values_list("pk", flat=True))


def test_they_come_in_the_order_of_lists_in_two_queries(
    jobs: list[str], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(2):
        assert listing.newest(JobState.COMPLETED, 5) == jobs[:5]
    assert listing.newest(JobState.COMPLETED, 100) == jobs
    assert listing.newest(JobState.CANCELLED, 5) == []


def test_they_can_begin_after_a_moment_and_go_backwards(jobs: list[str]) -> None:
    times = dict(Job.objects.values_list("pk", "enqueued_at"))
    at = times[jobs[4]]

    later = [job for job in jobs if times[job] > at]
    earlier = [job for job in jobs if times[job] < at]

    assert listing.newest(JobState.COMPLETED, 2, beyond=at) == earlier[:2]
    assert listing.newest(JobState.COMPLETED, 2, beyond=at, is_backwards=True) == later[::-1][:2]
    assert listing.newest(JobState.COMPLETED, 100, is_backwards=True) == jobs[::-1]


def test_too_many_queues_are_left_to_the_caller(
    jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_QUEUES", 2)

    assert listing.newest(JobState.COMPLETED, 5) is None


@pytest.mark.parametrize("most", [200, 2])
def test_pages_of_completed_jobs_follow_one_another(
    jobs: list[str], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_QUEUES", most)
    monkeypatch.setattr("queueadmin.admin.job_admin.JobAdmin.list_per_page", 4)
    client = Client()
    client.force_login(make_user("anna", "view_job"))

    shown = []
    for number in (1, 2, 3):
        answer = client.get(f"/admin/queueadmin/job/?state=completed&p={number}")
        shown += [job.pk for job in answer.context["cl"].result_list]

    assert shown == jobs
