import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings

from queueadmin import deadletters, operations
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, Job
from queueadmin.models.dead_letter import Urgency
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import TRIAGE, make_dead_letter, make_user

pytestmark = pytest.mark.django_db

VERBS: list[tuple[str, Callable[..., Any]]] = [
    ("requeue_deadletter", lambda pk, by: deadletters.requeue([pk], by=by)),
    ("assign_deadletter", lambda pk, by: deadletters.assign([pk], to=None, by=by)),
    ("assign_deadletter", lambda pk, by: deadletters.set_urgency([pk], urgency=3, by=by)),
    ("annotate_deadletter", lambda pk, by: deadletters.annotate(pk, text="x", by=by)),
    ("close_deadletter", lambda pk, by: deadletters.close([pk], by=by, reason="x")),
]


@pytest.mark.parametrize(("permission", "act"), VERBS)
def test_a_verb_refuses_who_has_every_permission_but_its_own(
    permission: str, act: Callable[..., Any]
) -> None:
    letter = make_dead_letter()
    nearly = make_user("nearly", *(name for name in TRIAGE if name != permission))

    with pytest.raises(NotPermitted):
        act(letter.pk, nearly)

    assert not AuditEntry.objects.exists()
    letter.refresh_from_db()
    assert (letter.status, letter.urgency) == (DeadLetterStatus.PENDING, Urgency.NORMAL)


def test_requeue_moves_the_job_and_says_who_and_why() -> None:
    letter, anna = make_dead_letter(), make_user("anna", *TRIAGE)

    result = deadletters.requeue([letter.pk], by=anna, reason="number corrected")

    assert result == deadletters.BulkResult(1, 1, {})
    letter.refresh_from_db()
    assert (letter.status, letter.requeued_by) == (DeadLetterStatus.REQUEUED, anna)
    assert letter.requeued_at is not None
    assert Job.objects.get(pk=letter.job_id).state == JobState.WAITING
    entry = AuditEntry.objects.get()
    assert (entry.user, entry.verb, entry.reason) == (anna, "requeue", "number corrected")
    assert (entry.target_type, entry.target_id) == ("dead letter", str(letter.pk))


def test_requeue_pressed_again_is_skipped() -> None:
    letter = make_dead_letter()
    deadletters.requeue([letter.pk], by=None)

    again = deadletters.requeue([letter.pk], by=None)

    assert again == deadletters.BulkResult(1, 0, {"already requeued": 1})
    assert AuditEntry.objects.count() == 1


def test_requeue_leaves_a_dead_letter_pending_whose_job_cannot_move() -> None:
    letter = make_dead_letter(job={"state": JobState.CANCELLED})

    result = deadletters.requeue([letter.pk], by=None)

    assert result == deadletters.BulkResult(1, 0, {"job cannot run again": 1})
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING


def test_a_bulk_verb_counts_what_it_skipped_and_why() -> None:
    letters = [
        make_dead_letter(),
        make_dead_letter(status=DeadLetterStatus.REQUEUED),
        make_dead_letter(status=DeadLetterStatus.RECOVERED),
        make_dead_letter(status=DeadLetterStatus.PERMANENTLY_FAILED),
    ]
    ids = [*(letter.pk for letter in letters), 99_999, letters[0].pk]

    expected = deadletters.preview(ids, "close")
    result = deadletters.close(ids, by=None, reason="gone")

    assert result == expected
    assert result == deadletters.BulkResult(
        5,
        1,
        {
            "already requeued": 1,
            "already recovered": 1,
            "already marked permanently failed": 1,
            "no longer there": 1,
        },
    )


@override_settings(QUEUEADMIN={"BULK_LIMIT": 2})
def test_a_bulk_verb_stops_at_the_limit() -> None:
    ids = [make_dead_letter().pk for _number in range(3)]

    result = deadletters.requeue(ids, by=None)

    assert result == deadletters.BulkResult(3, 2, {"over the limit of one action": 1})


@pytest.mark.parametrize("pk", [2**63, -(2**63) - 1, 10**40])
def test_an_id_that_no_row_can_have_is_no_longer_there(pk: int) -> None:
    letter = make_dead_letter()
    ids = [pk, letter.pk]

    assert deadletters.preview(ids, "close").skipped == {"no longer there": 1}
    result = deadletters.close(ids, by=None, reason="gone")
    assert (result.done, result.skipped) == (1, {"no longer there": 1})
    assert operations.preview([pk]).skipped == {"no longer there": [0]}


def test_close_needs_a_reason_and_keeps_it() -> None:
    letter, ben = make_dead_letter(), make_user("ben", *TRIAGE)
    with pytest.raises(ValueError, match="needs a reason"):
        deadletters.close([letter.pk], by=ben, reason=" \0 ")

    deadletters.close([letter.pk], by=ben, reason="shop closed")

    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PERMANENTLY_FAILED
    assert (letter.closed_by, letter.closing_reason) == (ben, "shop closed")


def test_assign_gives_to_a_person_and_back_to_nobody() -> None:
    letter, anna = make_dead_letter(), make_user("anna", *TRIAGE)

    assert deadletters.assign([letter.pk], to=anna, by=anna).done == 1
    assert deadletters.assign([letter.pk], to=anna, by=anna).skipped == {"nothing to change": 1}
    assert deadletters.assign([letter.pk], to=None, by=anna).done == 1

    details = [entry.detail for entry in AuditEntry.objects.order_by("id")]
    assert details == [{"to": "anna"}, {"to": ""}]


def test_assign_refuses_an_owner_who_may_not_see_dead_letters() -> None:
    letter, stranger = make_dead_letter(), make_user("stranger")

    with pytest.raises(NotPermitted):
        deadletters.assign([letter.pk], to=stranger, by=make_user("anna", *TRIAGE))


def test_notes_of_several_people_stay_in_order_with_their_lines() -> None:
    letter = make_dead_letter(status=DeadLetterStatus.RECOVERED)
    deadletters.annotate(letter.pk, text="first\nline two", by=make_user("anna", *TRIAGE))
    deadletters.annotate(letter.pk, text="second", by=make_user("ben", *TRIAGE))

    notes = [(note.author_name, note.text) for note in letter.notes.all()]

    assert notes == [("anna", "first\nline two"), ("ben", "second")]


def test_an_act_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = make_dead_letter()

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("audit table is gone")

    monkeypatch.setattr("queueadmin.audit.record", refuse)
    with pytest.raises(RuntimeError):
        deadletters.requeue([letter.pk], by=None)

    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING
    assert Job.objects.get(pk=letter.job_id).state == JobState.DEAD


def _meanwhile(
    first: Callable[[], object], second: Callable[[], object], *, first_commits: bool
) -> None:
    """Run `second` in another connection while the transaction of `first` is open."""
    if "memory" in str(connection.settings_dict["NAME"]):
        pytest.skip("two connections need a database in a file")
    errors: list[Exception] = []
    started = threading.Event()

    def run_second() -> None:
        started.set()
        try:
            second()
        except Exception as error:  # handed to the test's own thread
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run_second)
    try:
        with transaction.atomic():
            first()
            thread.start()
            started.wait()
            if not first_commits:
                transaction.set_rollback(True)
    finally:
        thread.join()
    assert not errors, errors


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first_commits", [True, False])
def test_requeue_pressed_by_two_people_at_once_runs_once(first_commits: bool) -> None:
    letter = make_dead_letter()
    results: dict[str, deadletters.BulkResult] = {}

    _meanwhile(
        lambda: results.update(first=deadletters.requeue([letter.pk], by=None)),
        lambda: results.update(second=deadletters.requeue([letter.pk], by=None)),
        first_commits=first_commits,
    )

    winner = deadletters.BulkResult(1, 1, {})
    loser = deadletters.BulkResult(1, 0, {"already requeued": 1})
    assert results == {"first": winner, "second": loser if first_commits else winner}
    assert Job.objects.get(pk=letter.job_id).requeues == 1
    assert AuditEntry.objects.filter(verb="requeue").count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["requeue", "close"])
def test_of_requeue_and_close_at_once_only_the_first_happens(first: str) -> None:
    letter = make_dead_letter()
    acts: dict[str, Callable[[], object]] = {
        "requeue": lambda: deadletters.requeue([letter.pk], by=None),
        "close": lambda: deadletters.close([letter.pk], by=None, reason="gone"),
    }
    second = "close" if first == "requeue" else "requeue"

    _meanwhile(acts[first], acts[second], first_commits=True)

    assert [entry.verb for entry in AuditEntry.objects.all()] == [first]
    is_waiting = Job.objects.filter(pk=letter.job_id, state=JobState.WAITING).exists()
    assert is_waiting == (first == "requeue")


@pytest.mark.django_db(transaction=True)
def test_two_overlapping_bulk_requeues_share_the_work_without_deadlock() -> None:
    ids = [make_dead_letter().pk for _number in range(6)]
    results: list[deadletters.BulkResult] = []

    _meanwhile(
        lambda: results.append(deadletters.requeue(ids[:4], by=None)),
        lambda: results.append(deadletters.requeue(reversed(ids[2:]), by=None)),
        first_commits=True,
    )

    assert [result.done for result in results] == [4, 2]
    assert not DeadLetter.objects.pending().exists()
