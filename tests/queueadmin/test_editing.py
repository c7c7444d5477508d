"""Edit and requeue through its use case: who wins, what is kept, what is refused."""

import json
import threading

import dramatiq
import pytest
from django.db import connection, transaction

from queueadmin import deadletters, editing, erasure
from queueadmin.exceptions import InvalidMessage, NotPermitted, PermanentError
from queueadmin.models import AuditEntry, DeadLetter, Job, Revision
from queueadmin.payloads import ERASED
from queueadmin.states import DeadLetterStatus, JobState
from tests.config.processes import wait_until
from tests.queueadmin.rows import make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent():
    return []


@pytest.fixture
def letter(broker, start_worker, sent):
    """A dead letter of an actor that refuses numbers without a country."""

    def notify(phone: str, order: int, copies: int = 1, *, token: str = "", **extra: str) -> None:
        if not phone.startswith("+"):
            raise PermanentError(f"no country: {phone}")
        sent.append((phone, order, copies, token, extra))

    actor = dramatiq.actor(
        notify, actor_name="notify", queue_name="q", broker=broker, sensitive=["token"]
    )
    actor.send("0171 5", 12, token="hunter2", note="a")
    start_worker(threads=1)
    wait_until(DeadLetter.objects.exists)
    return DeadLetter.objects.get()


@pytest.fixture
def editor(db):
    return make_user("emma", "edit_deadletter", "requeue_deadletter", "view_deadletter")


def version(letter):
    return editing.draft(Job.objects.get(pk=letter.job_id)).version


def edit(letter, texts, by, **others):
    return editing.requeue(
        letter.pk, texts, by=by, **{"version": version(letter), "reason": "wrong", **others}
    )


def test_the_draft_shows_every_parameter_and_no_secret(letter):
    found = {argument.name: argument for argument in editing.draft(letter.job).arguments}

    assert list(found) == ["phone", "order", "copies", "token", "extra"]
    assert (found["phone"].text, found["phone"].is_plain) == ("0171 5", True)
    assert (found["order"].text, found["order"].expected) == ("12", "int")
    assert not found["copies"].is_given
    assert found["token"].is_hidden
    assert found["token"].text == ""
    assert json.loads(found["extra"].text) == {"note": "a"}


def test_an_edited_job_runs_with_what_was_changed_and_all_else_as_it_was(letter, editor, sent):
    texts = {"phone": "+49171 5", "copies": "2", "extra": '{"note": "b"}', "token": "stolen"}
    changes = edit(letter, texts, editor)

    assert [change.name for change in changes] == ["phone", "copies", "extra"]
    wait_until(lambda: Job.objects.get().state == JobState.COMPLETED)
    assert sent == [("+49171 5", 12, 2, "hunter2", {"note": "b"})]
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.RECOVERED
    kept = json.loads(bytes(Revision.objects.get().message))
    assert kept["args"] == ["0171 5", 12]
    entry = AuditEntry.objects.get(verb="edit")
    assert entry.user_name == "emma"
    assert entry.detail["changes"][0] == {
        "name": "phone",
        "before": "0171 5",
        "after": "+49171 5",
    }
    assert "hunter2" not in json.dumps(entry.detail)


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"order": "twelve"}, "order"),
        ({"order": '"12"'}, "order"),
        ({"order": "NaN"}, "order"),
        ({"order": ""}, "order"),
        ({"extra": "[1]"}, "extra"),
        ({"extra": '{"note": 1}'}, "note"),
        ({}, None),
        ({"phone": "0171 5"}, None),
    ],
)
def test_what_the_actor_does_not_take_changes_nothing(letter, editor, texts, field):
    before = bytes(letter.job.message)
    with pytest.raises(InvalidMessage) as caught:
        edit(letter, texts, editor)

    assert (caught.value.field or None) == field
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING
    assert bytes(Job.objects.get().message) == before
    assert not Revision.objects.exists()
    assert not AuditEntry.objects.filter(verb="edit").exists()


@pytest.mark.parametrize("lacking", ["edit_deadletter", "requeue_deadletter"])
def test_it_needs_both_permissions(letter, lacking):
    some = {"edit_deadletter", "requeue_deadletter"} - {lacking}
    with pytest.raises(NotPermitted, match=lacking):
        edit(letter, {"phone": "+1"}, make_user("paul", *some))


def test_of_two_people_the_second_changes_nothing(letter, editor, sent):
    seen = version(letter)
    edit(letter, {"phone": "+49 1"}, editor, version=seen)
    with pytest.raises(editing.NotEditable):
        edit(letter, {"phone": "+49 2"}, editor, version=seen)
    wait_until(lambda: Job.objects.get().state == JobState.COMPLETED)

    assert [phone for phone, *_ in sent] == ["+49 1"]


@pytest.mark.skipif(
    not connection.features.has_select_for_update, reason="one writer at a time: nothing to order"
)
@pytest.mark.parametrize("late", ["edit", "erase"])
def test_it_does_not_wait_for_a_recorder_that_waits_for_it(letter, editor, late):
    """The recorder locks the row of a job that ends, then the row of its dead letter."""
    seen = version(letter)
    DeadLetter.objects.update(status=DeadLetterStatus.REQUEUED)
    locked, go_on, failed = threading.Event(), threading.Event(), []

    def record_the_end():
        try:
            with transaction.atomic():
                Job.objects.update(state=JobState.COMPLETED)
                locked.set()
                go_on.wait(10)
                DeadLetter.objects.update(status=DeadLetterStatus.RECOVERED)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    recorder = threading.Thread(target=record_the_end)
    recorder.start()
    assert locked.wait(10)
    if late == "edit":
        with pytest.raises(editing.NotEditable, match="not pending"):
            edit(letter, {"phone": "+49 2"}, editor, version=seen)
        go_on.set()
    else:
        threading.Timer(0.5, go_on.set).start()
        assert erasure.erase([letter.job_id], by=None, everything=True).done == 1
    recorder.join(15)

    assert failed == []
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.RECOVERED
    if late == "erase":
        assert letter.error_message == ERASED


def test_who_looked_before_somebody_else_edited_has_to_look_again(letter, editor, sent):
    seen = version(letter)
    edit(letter, {"phone": "0171 6"}, editor, version=seen)
    # It died again, and is pending as it was.
    wait_until(lambda: DeadLetter.objects.get().deaths == 2)
    with pytest.raises(editing.NotEditable, match="meanwhile"):
        edit(letter, {"phone": "+49 2"}, editor, version=seen)

    assert sent == []
    assert Revision.objects.count() == 1


def test_a_requeue_before_the_edit_wins(letter, editor):
    deadletters.requeue([letter.pk], by=None)
    wait_until(lambda: DeadLetter.objects.get().deaths == 2)
    deadletters.close([letter.pk], by=None, reason="done")
    with pytest.raises(editing.NotEditable):
        edit(letter, {"phone": "+49 2"}, editor)
    assert not Revision.objects.exists()


def test_a_job_whose_actor_is_unknown_here_or_that_was_erased_is_not_editable(letter, broker):
    actor = broker.actors.pop("notify")
    with pytest.raises(editing.NotEditable, match="not known"):
        editing.draft(letter.job)
    broker.actors["notify"] = actor
    erasure.erase([letter.job_id], by=None, everything=True)
    with pytest.raises(editing.NotEditable, match="erased"):
        editing.draft(Job.objects.get())


def test_erasing_a_job_takes_its_former_arguments_away(letter, editor):
    edit(letter, {"phone": "0171 6"}, editor)
    wait_until(lambda: DeadLetter.objects.get().deaths == 2)
    assert Revision.objects.exists()
    erasure.erase([letter.job_id], by=None)
    assert not Revision.objects.exists()
