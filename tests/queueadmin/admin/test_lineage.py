"""The job page shows whom a job comes from and what comes of it."""

import json

import dramatiq
import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from dramatiq.composition import pipeline
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend

from queueadmin.models import Job
from queueadmin.states import JobState
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import make_job

pytestmark = pytest.mark.django_db


@pytest.fixture
def broker():
    from queueadmin.brokers import StubBroker

    previous = dramatiq.get_broker()
    broker = StubBroker(middleware=[GroupCallbacks(StubBackend())])
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(previous)


def lineage(client: Client, job: Job):
    response = client.get(reverse("admin:queueadmin_job_change", args=[quote(job.pk)]))
    assert response.status_code == 200
    return response.context["lineage"], response.content.decode()


def test_a_pipeline_shows_its_coming_steps_and_then_its_jobs(viewer, broker):
    first, second, third = (
        dramatiq.actor(lambda *_: 1, actor_name=name, queue_name="q", broker=broker)
        for name in ("first", "second", "third")
    )
    pipeline([first.message(), second.message(), third.message()], broker=broker).run()
    job = Job.objects.get()

    found, html = lineage(viewer, job)
    assert found.coming == ["second", "third"]
    assert "Then" in html
    run_jobs()

    head, middle = (Job.objects.get(actor=name) for name in ("first", "second"))
    assert [child.pk for child in lineage(viewer, head)[0].children] == [middle.pk]
    assert lineage(viewer, middle)[0].parent.pk == head.pk
    assert lineage(viewer, middle)[0].coming == []  # it has ended; its step is a job of its own


def test_a_group_shows_how_many_of_its_jobs_have_completed(viewer, broker):
    def work(number):
        if number == 2:
            raise ValueError("two")

    actor = dramatiq.actor(work, queue_name="q", broker=broker, max_retries=0)
    done = dramatiq.actor(lambda: None, actor_name="done", queue_name="later", broker=broker)
    group = dramatiq.group([actor.message(number) for number in range(3)], broker=broker)
    group.add_completion_callback(done.message())
    group.run()
    run_jobs()
    make_job()

    found, html = lineage(viewer, Job.objects.filter(actor="work").first())

    assert (found.group_done, found.group_size) == (2, 3)
    assert dict(found.group) == {JobState.COMPLETED: 2, JobState.DEAD: 1}
    assert "2 of 3 completed" in html
    uuid = Job.objects.filter(actor="work").first().group
    listed = viewer.get(f"/admin/queueadmin/job/?group={uuid}").context["cl"].result_list
    assert {row.actor for row in listed} == {"work"}
    assert len(listed) == 3


def test_hostile_options_break_no_page(viewer):
    for target in ([], "x", {"options": []}, {"actor_name": "<b>"}):
        message = {"args": [], "kwargs": {}, "options": {"pipe_target": target}}
        job = make_job(message=json.dumps(message).encode())

        found, html = lineage(viewer, job)

        assert "<b>" not in html
        assert len(found.coming) <= 1


def test_a_family_of_any_size_takes_three_queries(viewer, django_assert_max_num_queries):
    parent = make_job()
    for _ in range(60):
        make_job(parent=parent.pk)

    with django_assert_max_num_queries(30):
        found, _html = lineage(viewer, parent)

    assert len(found.children) == 50
    assert found.has_more_children


def test_progress_is_a_bar_with_words(viewer):
    job = make_job(
        state=JobState.ACTIVE, progress_done=40, progress_total=100, progress_text="reading <b>"
    )

    _found, html = lineage(viewer, job)

    assert '<progress max="100" value="40"' in html
    assert "40 of 100" in html
    assert "reading &lt;b&gt;" in html
    # It follows the job while it runs, and stops when it has ended.
    assert 'hx-trigger="every 2s"' in html
    Job.objects.filter(pk=job.pk).update(state=JobState.DEAD)
    assert "hx-trigger" not in lineage(viewer, job)[1]
