"""The list of attempts that failed lately."""

import pytest
from django.urls import reverse
from django.utils import timezone

from queueadmin.models import Attempt
from queueadmin.states import JobState, Outcome
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_job

LIST = reverse("admin:queueadmin_attempt_changelist")


def make_retry(*, queue="whatsapp-messages", error_class="Timeout", **fields):
    job = make_job(state=JobState.RETRYING, queue=queue)
    values = {"number": 1, "dispatch": 1, "outcome": Outcome.RETRYING, "duration_ms": 41.0,
              "delay_ms": 5_000, "started_at": timezone.now(), "error_class": error_class}  # fmt: skip
    return Attempt.objects.create(job=job, **{**values, **fields})


def shown(answer):
    return [attempt.pk for attempt in answer.context["cl"].result_list]


def test_retries_are_listed_newest_first_without_final_failures(viewer):
    first, second = make_retry(), make_retry()
    make_dead_letter()

    assert shown(viewer.get(LIST)) == [second.pk, first.pk]
    html = viewer.get(LIST).content.decode()
    assert reverse("admin:queueadmin_job_change", args=[first.job_id]) in html


def test_filters_narrow_the_list(viewer):
    make_retry()
    mail = make_retry(queue="email-notifications")
    refused = make_retry(error_class="Refused")

    assert shown(viewer.get(LIST, {"job__queue": "email-notifications"})) == [mail.pk]
    assert shown(viewer.get(LIST, {"error_class": "Refused"})) == [refused.pk]
    assert shown(viewer.get(LIST, {"error_class": "a\0b"})) == []


def test_an_empty_list_says_what_would_be_there(viewer):
    assert "Nothing was retried lately" in viewer.get(LIST).content.decode()


def test_whoever_lacks_the_permission_sees_nothing(anna):
    make_retry()

    assert anna.get(LIST).status_code == 403


def test_nobody_edits_an_attempt(lead):
    attempt = make_retry()
    address = reverse("admin:queueadmin_attempt_change", args=[attempt.pk])

    assert lead.post(address, {"number": 7}).status_code == 403
    attempt.refresh_from_db()
    assert attempt.number == 1


def test_the_list_takes_a_fixed_number_of_queries(viewer, django_assert_max_num_queries):
    for _ in range(10):
        make_retry()
    with django_assert_max_num_queries(11):
        viewer.get(LIST)


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_text(viewer, text):
    make_retry(error_message=text.replace("\0", ""))

    assert_text_only(viewer.get(LIST))
