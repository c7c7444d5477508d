"""Dead letters by the API."""

import dramatiq
import pytest

from queueadmin.models import AuditEntry, DeadLetter
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_job, make_user


def requeue(call, **body):
    return call("POST", "dead-letters/requeue/", body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [1], "filter": {"queue": "x"}},
        {"filter": {}},
        {"filter": {"status": "pending"}},
        {"filter": {"queue": ""}},
        {"ids": ["one"]},
        {"ids": [2**63]},
        {"ids": [-1]},
        {"ids": [1], "dry_run": "perhaps"},
    ],
)
def test_a_selection_that_means_nothing_or_everything_is_refused(call, body):
    make_dead_letter()

    assert requeue(call, **body).status_code == 400
    assert DeadLetter.objects.pending().count() == 1


def test_a_dry_run_counts_and_changes_nothing(call):
    make_dead_letter()
    make_dead_letter(status=DeadLetterStatus.RECOVERED)
    ids = [*DeadLetter.objects.values_list("pk", flat=True), 10**17]
    answer = requeue(call, ids=ids, dry_run=True)

    assert answer.json() == {
        "requested": 3,
        "done": 1,
        "skipped": {"already recovered": 1, "no longer there": 1},
        "dry_run": True,
    }
    assert DeadLetter.objects.pending().count() == 1


def test_many_are_requeued_by_what_they_have_in_common(call, broker):
    wanted = [make_dead_letter(error_class="Timeout") for _ in range(3)]
    other = make_dead_letter()
    answer = requeue(call, filter={"error_class": "Timeout"}, reason="mended")

    assert answer.json()["done"] == 3
    assert set(DeadLetter.objects.pending()) == {other}
    entries = AuditEntry.objects.filter(verb="requeue", reason="mended")
    assert {int(entry.target_id) for entry in entries} == {letter.pk for letter in wanted}


def test_a_second_requeue_is_a_conflict(call, broker):
    letter = make_dead_letter()
    first = call("POST", f"dead-letters/{letter.pk}/requeue/")
    second = call("POST", f"dead-letters/{letter.pk}/requeue/")

    assert first.json()["status"] == "requeued"
    assert second.status_code == 409
    assert "already requeued" in second.json()["detail"]


def test_closing_needs_a_reason(call):
    letter = make_dead_letter()
    path = f"dead-letters/{letter.pk}/mark-failed/"

    assert call("POST", path, {}).status_code == 400
    assert call("POST", path, {"reason": "  "}).status_code == 400
    assert call("POST", path, {"reason": "refunded"}).json()["closing_reason"] == "refunded"
    assert call("POST", path, {"reason": "refunded"}).status_code == 409


def test_triage_is_all_or_nothing(call):
    letter = make_dead_letter()
    answer = call(
        "PATCH", f"dead-letters/{letter.pk}/", {"priority": "urgent", "assignee": "nobody"}
    )

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "assignee"
    letter.refresh_from_db()
    assert letter.urgency == 1


def test_triage_assigns_sets_the_priority_and_adds_a_note(call):
    make_user("mira", "view_deadletter")
    letter = make_dead_letter()
    body = {"assignee": "mira", "priority": "urgent", "note": "On it."}
    answer = call("PATCH", f"dead-letters/{letter.pk}/", body).json()

    assert (answer["assignee"], answer["priority"]) == ("mira", "urgent")
    assert [note["text"] for note in answer["notes"]] == ["On it."]
    found = call("GET", "dead-letters/?assignee=mira").json()["results"]
    assert [each["id"] for each in found] == [letter.pk]
    again = call("PATCH", f"dead-letters/{letter.pk}/", {"assignee": None}).json()
    assert again["assignee"] is None
    assert call("GET", "dead-letters/?assignee=none").json()["results"]


def test_an_address_that_two_people_share_names_nobody(call):
    make_user("mira", "view_deadletter", email="office@example.com")
    make_user("omar", "view_deadletter", email="Office@example.com")
    letter = make_dead_letter()
    answer = call("PATCH", f"dead-letters/{letter.pk}/", {"assignee": "office@example.com"})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "assignee"


def test_a_closed_dead_letter_can_no_longer_be_assigned(call):
    letter = make_dead_letter(status=DeadLetterStatus.PERMANENTLY_FAILED)

    answer = call("PATCH", f"dead-letters/{letter.pk}/", {"priority": "low"})
    assert answer.status_code == 409


def test_only_closed_ones_are_removed(call):
    open_one = make_dead_letter()
    closed = make_dead_letter(status=DeadLetterStatus.RECOVERED, job={"state": JobState.COMPLETED})

    assert call("DELETE", f"dead-letters/{open_one.pk}/").status_code == 409
    assert call("DELETE", f"dead-letters/{closed.pk}/").status_code == 204
    assert set(DeadLetter.objects.all()) == {open_one}


def test_a_holder_of_the_unique_key_is_named(call, broker, django_assert_num_queries):
    from queueadmin.models import UniqueKey

    letter = make_dead_letter(job={"unique_key": "order:1"})
    holder = make_job(unique_key="order:1")
    UniqueKey.objects.create(actor=holder.actor, key="order:1", job_id=holder.pk)
    answer = call("POST", f"dead-letters/{letter.pk}/requeue/")

    assert answer.status_code == 409
    assert holder.pk in answer.json()["detail"]


def test_what_is_not_safe_to_repeat_takes_the_actors_name(call, broker):
    @dramatiq.actor(queue_name="payments", replay_safe=False)
    def transfer() -> None:
        """Never run here."""

    letter = make_dead_letter(job={"queue": "payments", "actor": "transfer"})
    path = f"dead-letters/{letter.pk}/requeue/"

    refused = call("POST", path, {"reason": "again"})
    assert refused.status_code == 409
    assert "confirm" in refused.json()["detail"]
    assert call("POST", f"jobs/{letter.job_id}/retry/").status_code == 409
    assert call("POST", path, {"confirm": "transfer"}).json()["status"] == "requeued"


def test_a_dead_letter_is_snoozed_woken_dated_and_linked(call):
    letter = make_dead_letter()
    path = f"dead-letters/{letter.pk}/"

    snoozed = call("POST", f"{path}snooze/", {"until": "2040-05-05T10:00:00Z", "reason": "x"})
    woken = call("POST", f"{path}wake/", {})
    again = call("POST", f"{path}wake/", {})
    dated = call(
        "PATCH", path, {"due_at": "2040-05-05T10:00:00Z", "ticket_url": "https://a.example/1"}
    )

    assert snoozed.json()["snoozed_until"] == "2040-05-05T10:00:00Z"
    assert (woken.json()["snoozed_at"], again.status_code) == (None, 200)
    assert dated.json()["due_at"] == "2040-05-05T10:00:00Z"
    assert dated.json()["ticket_url"] == "https://a.example/1"
    assert call("PATCH", path, {"ticket_url": "javascript:alert(1)"}).status_code == 400
    assert call("POST", f"{path}snooze/", {"until": "2001-01-01T00:00:00Z"}).status_code == 400
