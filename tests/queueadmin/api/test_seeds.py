"""Every call of the systems that this one unites has its own here; docs/api.md has the table."""

import re
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
from django.utils import timezone

from queueadmin import jobs
from queueadmin.models import Job
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

QUEUE = "whatsapp-messages"
TABLE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


@pytest.fixture
def send(broker):
    @dramatiq.actor(queue_name=QUEUE, actor_name="send")
    def send(recipient: str) -> None:
        """Never run here."""

    return send


# --- /api/v1/queue of the distributed job queue -------------------------------------------
def test_get_queue_metrics(call):
    names = [queue["name"] for queue in call("GET", "queues/").json()]

    assert QUEUE in names


def test_get_queue_metrics_queuename(call):
    make_job()

    assert call("GET", f"queues/{QUEUE}/").json()["waiting"] == 1


def test_get_queue_jobs_queuename_jobid(call):
    job = make_job()

    assert call("GET", f"jobs/{job.pk}/").json()["queue"] == QUEUE


def test_get_queue_failed_queuename(call):
    failed = make_dead_letter()
    make_dead_letter(job={"queue": "email-notifications"})
    found = call("GET", f"jobs/?state=failed&queue={QUEUE}&limit=50").json()["results"]

    assert [job["id"] for job in found] == [failed.job_id]


def test_get_queue_dead_letter(call):
    letter = make_dead_letter()
    found = call("GET", "dead-letters/").json()["results"]

    assert [each["id"] for each in found] == [letter.pk]


def test_post_queue_retry_queuename_jobid(call, broker):
    letter = make_dead_letter()

    assert call("POST", f"jobs/{letter.job_id}/retry/").json()["state"] == "waiting"


def test_delete_queue_jobs_queuename_jobid(call):
    job = make_job(state=JobState.COMPLETED)

    assert call("DELETE", f"jobs/{job.pk}/").status_code == 204
    assert not Job.objects.exists()


def test_post_queue_jobs_queuename(call, send):
    body = {"actor": "send", "args": ["+9779800000000"], "priority": "high"}
    answer = call("POST", f"queues/{QUEUE}/jobs/", body)

    assert answer.status_code == 201
    assert Job.objects.get().get_priority_display() == "high"


# --- /api/admin/dlq of the notification queues ------------------------------------------
def test_get_dlq_queue(call):
    letter = make_dead_letter()
    make_dead_letter(queue="email-notifications")
    found = call("GET", f"dead-letters/?queue={QUEUE}").json()["results"]

    assert [each["id"] for each in found] == [letter.pk]


def test_post_dlq_jobid_retry(call, broker):
    letter = make_dead_letter()

    assert call("POST", f"dead-letters/{letter.pk}/requeue/").json()["status"] == "requeued"


def test_delete_dlq_jobid(call):
    letter = make_dead_letter(status=DeadLetterStatus.PERMANENTLY_FAILED)

    assert call("DELETE", f"dead-letters/{letter.pk}/").status_code == 204


# --- /api/queue-admin of the retry and recovery system ------------------------------------
def test_get_statistics(call):
    make_dead_letter()
    found = call("GET", "statistics/").json()

    assert found["queues"]
    assert found["dead_letters"][0]["pending"] == 1


def test_get_dead_letter_queue_limit_offset(call):
    for _ in range(3):
        make_dead_letter()
    first = call("GET", "dead-letters/?limit=2").json()
    second = call("GET", first["next"].split("/api/v1/")[1]).json()

    assert (len(first["results"]), len(second["results"])) == (2, 1)


def test_post_dead_letter_queue_dlqid_retry(call, broker):
    test_post_dlq_jobid_retry(call, broker)


def test_post_dead_letter_queue_dlqid_mark_failed(call):
    letter = make_dead_letter()
    reason = "Invalid data format, cannot be processed"
    answer = call("POST", f"dead-letters/{letter.pk}/mark-failed/", {"reason": reason})

    assert answer.json()["status"] == "permanently_failed"


def test_put_dead_letter_queue_dlqid_notes(call):
    make_user("mira", "view_deadletter", email="mira@example.com")
    letter = make_dead_letter()
    body = {"note": "Investigating root cause", "assignee": "mira@example.com"}
    body["priority"] = "high"
    answer = call("PATCH", f"dead-letters/{letter.pk}/", body).json()

    assert (answer["assignee"], answer["priority"]) == ("mira", "high")


def test_post_queues_pause(call):
    assert call("POST", f"queues/{QUEUE}/pause/", {"reason": "outage"}).json()["changed"]


def test_post_queues_resume(call):
    call("POST", f"queues/{QUEUE}/pause/")

    assert call("POST", f"queues/{QUEUE}/resume/").json()["changed"]


def test_post_queues_clean(call):
    make_job(state=JobState.COMPLETED, finished_at=timezone.now() - timedelta(days=2))
    body = {"state": "completed", "older_than_s": 86_400}

    assert call("POST", f"queues/{QUEUE}/clean/", body).json()["removed"] == 1


def test_post_trigger_recovery(call, broker):
    assert call("POST", "recovery/").json()["error"] == ""


def test_get_recovery_status(call, broker):
    call("POST", "recovery/")

    answer = call("GET", "recovery/").json()
    assert answer["total_runs"] == 1
    (recovery,) = answer["runs"]
    assert recovery["durations_ms"].keys() == recovery["found"].keys()


# --- What the systems without an API do in code ---------------------------------------------
def test_schedule_job(call, send):
    at = (timezone.now() + timedelta(minutes=5)).isoformat()
    body = {"actor": "send", "args": ["+1234567890"], "at": at}
    job = call("POST", f"queues/{QUEUE}/jobs/", body).json()["id"]

    assert call("GET", f"jobs/{job}/").json()["state"] == "scheduled"


def test_get_job_status(call):
    assert call("GET", f"jobs/{make_job().pk}/").json()["state"] == "waiting"
    assert call("GET", "jobs/gone/").status_code == 404


def test_cancel_job(call, send):
    job = jobs.schedule(send.message("x"), at=timezone.now() + timedelta(days=1)).message_id

    assert call("POST", f"jobs/{job}/cancel/").json() == {"cancelled": True}


def test_list_jobs(call):
    job = make_job(state=JobState.SCHEDULED)
    make_job()
    query = f"jobs/?state=scheduled&actor={job.actor}&limit=10"

    assert [each["id"] for each in call("GET", query).json()["results"]] == [job.pk]


def test_get_queue_health(client):
    assert client.get("/health/ready").json() == {"ready": True, "reasons": []}


test_get_queue_health = pytest.mark.django_db(test_get_queue_health)


def test_each_of_these_is_in_the_table_and_the_other_way_round():
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    here = {name for name in globals() if name.startswith("test_") and "table" not in name}

    assert named == here
