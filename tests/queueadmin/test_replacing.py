"""One argument of a whole group, changed and requeued under guard."""

import json
from typing import Any

import dramatiq
import pytest
import time_machine

from queueadmin import clock, editing, operations, replacing
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, Job, OperationItem, RequeueOperation, Revision
from queueadmin.replacing import Replacement
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_user

pytestmark = pytest.mark.django_db

MAY = ("view_deadletter", "requeue_deadletter", "edit_deadletter", "edit_many_deadletter")
ACTOR = "send_order_confirmation"


@pytest.fixture(autouse=True)
def actor(broker: Any) -> Any:
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker, sensitive=["token"])
    def send_order_confirmation(
        order: int, phone: str, country: str = "", token: str = ""
    ) -> None: ...

    return send_order_confirmation


def dead(number: int, phone: str = "0171 5", **fields: Any) -> DeadLetter:
    name = f"job-{number}"
    message = {
        "queue_name": "whatsapp-messages",
        "actor_name": ACTOR,
        "args": [number, phone],
        "kwargs": {"token": "hunter2"},
        "options": {},
        "message_id": name,
        "message_timestamp": 1,
    }
    return make_dead_letter(job={"id": name, "message": json.dumps(message).encode()}, **fields)


def released(operation: RequeueOperation) -> None:
    """Let the dispatcher begin it and release what its rate allows."""
    with time_machine.travel(clock.now(), tick=False) as time:
        for _turn in range(3):
            operations.carry_on()
            time.shift(1)


def skipped(preview: operations.Preview) -> dict[str, int]:
    return {reason: len(keys) for reason, keys in preview.skipped.items()}


def test_the_preview_says_which_jobs_it_fits_and_why_not_the_others() -> None:
    first, second = dead(1), dead(2)
    unreadable = make_dead_letter(job={"message": b"\xff"})
    letters = [first, second, dead(3, "0172"), unreadable, dead(4, status="requeued")]

    found = operations.preview(
        [letter.pk for letter in letters], Replacement("phone", "0171 5", "+49171 5")
    )

    assert (found.requested, found.eligible) == (5, 2)
    assert skipped(found) == {
        "has another value": 1,
        "cannot be edited": 1,
        "already requeued": 1,
    }
    assert found.examples == [first.pk, second.pk]
    assert not Revision.objects.exists()


def test_a_value_that_the_actor_does_not_take_is_refused_with_what_it_takes() -> None:
    found = operations.preview([dead(1).pk], Replacement("order", "1", '"one"'))

    assert skipped(found) == {"new value refused": 1}
    assert "order" in found.problem


def test_json_is_compared_by_its_value_and_a_masked_one_never() -> None:
    letter = dead(1)

    assert operations.preview([letter.pk], Replacement("order", " 1 ", "2")).eligible == 1
    assert operations.preview([letter.pk], Replacement("order", "true", "2")).eligible == 0
    assert skipped(operations.preview([letter.pk], Replacement("token", "hunter2", "x"))) == {
        "cannot be edited": 1
    }
    assert operations.preview([letter.pk], Replacement("country", "", "de")).eligible == 1


def test_what_was_seen_helps_to_fill_in_the_old_value() -> None:
    ids = [dead(1).pk, dead(2).pk, dead(3, "0172").pk]

    assert replacing.seen(ids)["phone"] == [("0171 5", 2), ("0172", 1)]
    assert "token" not in replacing.seen(ids)


def test_each_job_is_changed_as_it_is_requeued_and_the_rest_stays() -> None:
    emma = make_user("emma", *MAY)
    letter, other = dead(1), dead(2, "0172")

    operation = operations.create(
        [letter.pk, other.pk],
        by=emma,
        name="Country",
        reason="They forgot it",
        canary=0,
        replacement=Replacement("phone", "0171 5", "+49171 5"),
    )
    released(operation)

    job = Job.objects.get(pk=letter.job_id)
    assert job.state == JobState.WAITING
    assert (job.payload or {})["args"] == [1, "+49171 5"]
    assert (job.payload or {})["kwargs"] == {"token": "hunter2"}
    assert Revision.objects.get().job_id == job.pk  # what it was
    edit = AuditEntry.objects.get(verb="edit")
    assert (edit.user, edit.reason) == (emma, "Country: They forgot it")
    assert edit.detail["changes"] == [{"name": "phone", "before": "0171 5", "after": "+49171 5"}]
    other.refresh_from_db()
    assert other.status == DeadLetterStatus.PENDING
    assert OperationItem.objects.get(dead_letter=other).skip == "has another value"


def test_who_edited_one_meanwhile_had_the_last_word() -> None:
    emma, letter = make_user("emma", *MAY), dead(1)
    replacement = Replacement("phone", "0171 5", "+49171 5")
    operation = operations.create([letter.pk], by=emma, name="x", canary=0, replacement=replacement)
    version = editing.draft(letter.job).version
    editing.requeue(letter.pk, {"phone": "+43171 5"}, version=version, by=emma)
    Job.objects.update(state=JobState.DEAD)  # and it failed again
    DeadLetter.objects.update(status=DeadLetterStatus.PENDING)

    released(operation)

    assert OperationItem.objects.get().skip == "has another value"
    job = Job.objects.get(pk=letter.job_id)
    assert (job.payload or {})["args"] == [1, "+43171 5"]


@pytest.mark.parametrize("missing", ["edit_many_deadletter", "edit_deadletter"])
def test_it_has_a_permission_of_its_own(missing: str) -> None:
    nearly = make_user("nearly", *(name for name in MAY if name != missing))

    with pytest.raises(NotPermitted):
        operations.create(
            [dead(1).pk], by=nearly, name="x", replacement=Replacement("phone", "0171 5", "+1")
        )


def test_it_stops_when_its_owner_may_no_longer() -> None:
    emma = make_user("emma", *MAY)
    replacement = Replacement("phone", "0171 5", "+1")
    operation = operations.create(
        [dead(1).pk], by=emma, name="x", canary=0, replacement=replacement
    )
    emma.user_permissions.clear()

    released(operation)

    operation.refresh_from_db()
    assert operation.status == "stopped"
    assert "edit_many_deadletter" in operation.note
    assert DeadLetter.objects.get().status == DeadLetterStatus.PENDING


def test_no_more_than_a_bound_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "LIMIT", 1)
    ids = [dead(1).pk, dead(2).pk]

    found = operations.preview(ids, Replacement("phone", "0171 5", "+1"))

    assert (found.eligible, skipped(found)) == (1, {"over the limit of one action": 1})
