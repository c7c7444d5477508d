"""Queues, operations, groups, workers, schedules, recovery, statistics and audit by the API."""

from datetime import timedelta

import dramatiq
import pytest
from django.utils import timezone

from queueadmin import leases, statistics
from queueadmin.models import (
    Alert,
    AuditEntry,
    MinuteStatistic,
    Queue,
    RecoveryRun,
    ScheduleOccasion,
    Worker,
)
from queueadmin.states import DeadLetterStatus, JobState, OperationStatus
from tests.queueadmin.rows import make_dead_letter, make_group, make_job, make_user

QUEUE = "whatsapp-messages"


def test_a_queue_shows_what_it_has_to_do(call):
    make_job()
    make_job(state=JobState.RETRYING)
    make_dead_letter()
    MinuteStatistic.objects.create(
        minute=timezone.now().replace(second=0, microsecond=0),
        queue=QUEUE,
        actor="send",
        shard=0,
        completed=9,
        dead=1,
    )
    found = call("GET", f"queues/{QUEUE}/").json()

    assert (found["waiting"], found["retrying"], found["dead"]) == (1, 1, 1)
    assert found["last_hour"]["completed"] == 9
    assert found["last_hour"]["failed_percent"] == 10
    assert found["waiting_since"]
    assert found in call("GET", "queues/").json()


def test_counting_stops_and_says_so(call, monkeypatch):
    monkeypatch.setattr(statistics, "COUNT_LIMIT", 2)
    for _ in range(3):
        make_job()
    found = call("GET", f"queues/{QUEUE}/").json()

    assert (found["waiting"], found["more"]) == (2, ["waiting"])


def test_a_queue_is_paused_once_and_resumed_once(call):
    path = f"queues/{QUEUE}/"

    assert call("POST", path + "pause/", {"reason": "outage"}).json() == {"changed": True}
    assert call("POST", path + "pause/", {"reason": "outage"}).json() == {"changed": False}
    assert call("GET", path).json()["pause_reason"] == "outage"
    assert call("POST", path + "resume/").json() == {"changed": True}
    assert call("POST", path + "resume/").json() == {"changed": False}
    assert call("GET", path).json()["is_paused"] is False


def test_a_pause_that_is_over_before_it_begins_is_refused(call):
    until = (timezone.now() - timedelta(seconds=1)).isoformat()

    assert call("POST", f"queues/{QUEUE}/pause/", {"until": until}).status_code == 400
    assert not Queue.objects.exists()


def test_limits_are_replaced_and_given_back(call):
    path = f"queues/{QUEUE}/limits/"
    given = {"concurrency": 2, "rate": {"limit": 5, "window_ms": 1000}}
    limits = call("PUT", path, given).json()["limits"]

    assert (limits["concurrency"], limits["concurrency_from"]) == (2, "console")
    assert limits["rate"] == {"limit": 5, "window_ms": 1000}
    limits = call("PUT", path, {"concurrency": None, "rate": None}).json()["limits"]
    assert limits["concurrency_from"] == limits["rate_from"] == "settings"


@pytest.mark.parametrize("wrong", ["burst", "window_s"])
def test_limits_with_a_field_that_nobody_knows_inside_of_the_rate_are_refused(call, wrong):
    rate = {"limit": 5, "window_ms": 1000, wrong: 60}
    answer = call("PUT", f"queues/{QUEUE}/limits/", {"concurrency": None, "rate": rate})

    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"field": f"rate.{wrong}", "detail": "There is no such field; known: limit, window_ms."}
    ]
    assert not Queue.objects.exists()


@pytest.mark.parametrize("verb", ["pause", "resume", "clean"])
def test_a_queue_that_nobody_knows_is_not_found_and_not_made(call, verb):
    body = {"state": "completed", "older_than_s": 0} if verb == "clean" else {}

    assert call("POST", f"queues/nowhere/{verb}/", body).status_code == 404
    assert not Queue.objects.exists()


def test_cleaning_counts_first_and_removes_only_what_is_old(call):
    old = timezone.now() - timedelta(days=2)
    make_job(state=JobState.COMPLETED, finished_at=old)
    make_job(state=JobState.COMPLETED, finished_at=timezone.now())
    body = {"state": "completed", "older_than_s": 86_400}
    path = f"queues/{QUEUE}/clean/"

    dry = call("POST", path, {**body, "dry_run": True}).json()
    assert (dry["matched"], dry["removed"]) == (1, 0)
    assert call("POST", path, body).json()["removed"] == 1
    assert call("POST", path, body).json()["removed"] == 0


def test_statistics_sum_up_everything(call):
    make_job()
    make_dead_letter()
    make_dead_letter(status=DeadLetterStatus.RECOVERED)
    found = call("GET", "statistics/").json()

    queue = next(each for each in found["queues"] if each["name"] == QUEUE)
    assert queue["waiting"] == 1
    assert found["dead_letters"] == [
        {
            "queue": QUEUE,
            "pending": 1,
            "requeued": 0,
            "recovered": 1,
            "permanently_failed": 0,
            "more": [],
        }
    ]


def test_statistics_say_of_what_there_is_more_than_they_count(call, monkeypatch):
    monkeypatch.setattr("queueadmin.statistics.POLLED_LIMIT", 2)
    for _ in range(2):
        make_job()
        make_dead_letter()
    for _ in range(3):
        make_dead_letter(status=DeadLetterStatus.RECOVERED)
        make_job(state=JobState.RETRYING)
    found = call("GET", "statistics/").json()

    queue = next(each for each in found["queues"] if each["name"] == QUEUE)
    assert (queue["waiting"], queue["retrying"], queue["more"]) == (
        2,
        2,
        ["retrying", "dead"],
    )
    letters = found["dead_letters"][0]
    assert (letters["pending"], letters["recovered"], letters["more"]) == (2, 2, ["recovered"])


def test_statistics_without_anything(call):
    assert call("GET", "statistics/").json()["dead_letters"] == []


def test_recovery_runs_and_keeps_its_history(call, broker):
    run = call("POST", "recovery/").json()
    found = call("GET", "recovery/").json()

    assert set(run["found"].values()) == {0}
    assert (found["total_runs"], found["failed_runs"]) == (1, 0)
    assert [each["id"] for each in found["runs"]] == [run["id"]]


def test_two_recoveries_at_once_are_a_conflict(call, broker):
    leases.acquire("recovery", "somebody", timedelta(minutes=1))

    assert call("POST", "recovery/").status_code == 409
    assert not RecoveryRun.objects.exists()


def test_an_operation_is_started_steered_and_watched(call):
    for _ in range(3):
        make_dead_letter()
    body = {"name": "after the outage", "filter": {"queue": QUEUE}, "canary": 1}
    operation = call("POST", "operations/", body).json()
    path = f"operations/{operation['id']}/"

    assert operation["progress"]["waiting"] == 3
    assert call("POST", path + "pause/").json() == {"changed": True}
    assert call("POST", path + "pause/").json() == {"changed": False}
    assert call("POST", path + "resume/").json() == {"changed": True}
    assert call("POST", path + "abort/").json() == {"changed": True}
    assert call("GET", path).json()["status"] == OperationStatus.ABORTED
    assert [each["id"] for each in call("GET", "operations/").json()["results"]] == [
        operation["id"]
    ]


def test_an_operation_with_nothing_to_do_is_refused(call):
    body = {"name": "nothing", "filter": {"queue": QUEUE}}

    assert call("POST", "operations/", body).status_code == 400


def test_an_operation_with_a_field_that_nobody_knows_inside_of_its_change_is_refused(call):
    make_dead_letter()
    change = {"argument": "phone", "before": "1", "after": "2", "was": "1"}
    body = {"name": "wrong numbers", "filter": {"queue": QUEUE}, "change": change}
    answer = call("POST", "operations/", body)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["change.was"]


def test_a_group_is_taken_annotated_snoozed_resolved_and_reopened(call):
    make_user("mira", "view_failuregroup")
    group = make_group(deaths=2)
    path = f"failure-groups/{group.pk}/"

    taken = call("PATCH", path, {"owner": "mira", "ticket_url": "https://tickets.example/7"})
    assert taken.json()["owner"] == "mira"
    assert call("PATCH", path, {"ticket_url": "javascript:x"}).status_code == 400
    assert call("PATCH", path, {"owner": "nobody"}).status_code == 400
    assert call("PATCH", path, {}).status_code == 400
    assert call("POST", path + "notes/", {"text": "Seen before."}).status_code == 201
    assert call("POST", path + "snooze/", {"more_failures": 5}).json() == {"changed": True}
    assert call("POST", path + "snooze/", {"until": "2001-01-01T00:00:00Z"}).status_code == 400
    assert call("POST", path + "reopen/").json() == {"changed": True}
    done = {"what_was_done": "Raised the limit."}
    assert call("POST", path + "resolve/", {**done, "seen_deaths": 1}).json() == {"changed": False}
    assert call("POST", path + "resolve/", {**done, "seen_deaths": 2}).json() == {"changed": True}
    found = call("GET", path).json()
    assert (found["status"], found["resolution"]) == ("resolved", "Raised the limit.")
    assert [note["text"] for note in found["notes"]] == ["Seen before."]
    assert call("GET", "failure-groups/?status=resolved").json()["results"]


def test_a_worker_is_quieted_resumed_and_stopped(call):
    at = timezone.now()
    Worker.objects.create(
        id="web1:1", host="web1", pid=1, threads=8, started_at=at, seen_at=at, queues=[QUEUE]
    )

    assert call("GET", "workers/").json()[0]["queues"] == [QUEUE]
    for verb in ("quiet", "resume", "stop"):
        assert call("POST", f"workers/web1:1/{verb}/").json() == {"changed": True}
        assert call("POST", f"workers/web1:1/{verb}/").json() == {"changed": False}
    assert call("POST", "workers/web2:1/stop/").status_code == 404


def test_a_schedule_is_run_paused_and_resumed(call, broker):
    @dramatiq.actor(actor_name="queueadmin.recover")
    def recover() -> None:
        """Never run here."""

    job = call("POST", "schedules/recovery/run/", {"reason": "now"}).json()["job"]

    assert ScheduleOccasion.objects.get().job_id == job
    assert call("POST", "schedules/recovery/pause/").json() == {"changed": True}
    found = {each["name"]: each for each in call("GET", "schedules/").json()}["recovery"]
    assert (found["is_paused"], found["last_job"]) == (True, job)
    assert call("POST", "schedules/recovery/resume/").json() == {"changed": True}
    assert call("POST", "schedules/nothing/run/").status_code == 404


def test_the_audit_says_who_did_what(call):
    call("POST", f"queues/{QUEUE}/pause/", {"reason": "outage"})
    entry = call("GET", f"audit/?target_type=queue&target_id={QUEUE}").json()["results"][0]

    assert (entry["user"], entry["verb"], entry["reason"]) == ("script", "pause", "outage")


def test_attempts_that_failed_are_listed_over_all_jobs(call):
    make_dead_letter()

    assert call("GET", "attempts/?outcome=retrying").json()["results"] == []
    found = call("GET", f"attempts/?outcome=dead&queue={QUEUE}").json()["results"]
    assert found[0]["error_class"] == "RecipientRejected"


def test_alerts_are_listed_and_acknowledged_once(call):
    at = timezone.now()
    alert = Alert.objects.create(
        kind="stuck", subject="mail", queue="mail", text="7 wait", opened_at=at
    )
    Alert.objects.create(kind="stuck", text="was bad", opened_at=at, closed_at=at)

    (found,) = call("GET", "alerts/?state=open&kind=stuck&queue=mail").json()["results"]
    assert (found["id"], found["text"], found["acknowledged_by"]) == (alert.pk, "7 wait", None)
    assert len(call("GET", "alerts/").json()["results"]) == 2

    address = f"alerts/{alert.pk}/acknowledge/"
    answers = [call("POST", address, {"reason": "on it"}).json() for _number in range(2)]
    assert answers == [{"changed": True}, {"changed": False}]
    assert AuditEntry.objects.get(verb="acknowledge").reason == "on it"
    assert call("GET", "alerts/?state=open").json()["results"][0]["acknowledged_by"]
    assert call("POST", "alerts/999999/acknowledge/").status_code == 404
