"""Actors that are not safe to repeat: by every door, one by one and confirmed."""

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from queueadmin import checks, deadletters, editing, operations, runbooks
from queueadmin.editing import NotEditable
from queueadmin.models import DeadLetter, OperationItem
from queueadmin.states import DeadLetterStatus, ItemState
from tests.queueadmin.admin.hostile import HOSTILE
from tests.queueadmin.rows import make_dead_letter, make_group, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def transfer(broker):
    @dramatiq.actor(
        broker=broker, queue_name="payments", runbook="Ask the bank first.", replay_safe=False
    )
    def transfer(amount: int) -> None:
        """Never run here."""

    return transfer


def make_unsafe(**fields):
    return make_dead_letter(job={"queue": "payments", "actor": "transfer"}, **fields)


def pending():
    return set(DeadLetter.objects.pending().values_list("pk", flat=True))


@pytest.mark.parametrize("confirmed", ["", "Transfer", "send_order_confirmation"])
def test_one_is_not_requeued_without_its_name(confirmed):
    letter = make_unsafe()
    result = deadletters.requeue([letter.pk], by=None, confirmed=confirmed)

    assert (result.done, result.skipped) == (0, {"not safe to repeat": 1})
    assert pending() == {letter.pk}


def test_one_is_requeued_with_its_name():
    letter = make_unsafe()

    assert deadletters.requeue([letter.pk], by=None, confirmed="transfer").done == 1


def test_many_leave_it_out_whatever_is_confirmed():
    unsafe, safe = make_unsafe(), make_dead_letter()
    ids = [unsafe.pk, safe.pk]

    assert deadletters.preview(ids, "requeue").skipped == {"not safe to repeat": 1}
    result = deadletters.requeue(ids, by=None, confirmed="transfer")
    assert (result.done, result.skipped) == (1, {"not safe to repeat": 1})
    assert pending() == {unsafe.pk}


def test_other_verbs_take_it():
    ids = [make_unsafe().pk, make_dead_letter().pk]

    assert deadletters.preview(ids, "close").skipped == {}
    assert deadletters.close(ids, by=None, reason="done by hand").done == 2


def test_an_operation_leaves_it_out():
    unsafe, safe = make_unsafe(), make_dead_letter()
    ids = [unsafe.pk, safe.pk]

    assert operations.preview(ids).skipped == {"not safe to repeat": [unsafe.pk]}
    operations.create(ids, by=None, name="after the outage")
    item = OperationItem.objects.get(dead_letter=unsafe)
    assert (item.state, item.skip) == (ItemState.SKIPPED, "not safe to repeat")
    with pytest.raises(ValueError, match="None of these"):
        operations.create([unsafe.pk], by=None, name="only this")


def test_an_edit_is_undone_without_the_name():
    letter = make_unsafe()
    letter.job.message = transfer_message(letter.job_id)
    letter.job.save()
    version = editing.draft(letter.job).version

    with pytest.raises(NotEditable, match="not safe to repeat"):
        editing.requeue(letter.pk, {"amount": "2"}, version=version, by=None)
    letter.job.refresh_from_db()
    assert editing.draft(letter.job).version == version
    assert editing.requeue(
        letter.pk, {"amount": "2"}, version=version, by=None, confirmed="transfer"
    )


def transfer_message(job_id):
    message = dramatiq.Message("payments", "transfer", (1,), {}, {}, message_id=job_id)
    return message.encode()


def test_the_page_says_what_to_do_and_asks_for_the_name(client):
    letter = make_unsafe()
    client.force_login(make_user("anna", "view_deadletter", "requeue_deadletter"))
    html = client.get(
        reverse("admin:queueadmin_deadletter_change", args=[letter.pk])
    ).content.decode()
    assert "Ask the bank first." in html
    assert "Not safe to repeat" in html

    act = reverse("admin:queueadmin_deadletter_act", args=["requeue"])
    asked = client.get(act, {"ids": letter.pk, "back": "detail"})
    assert "Type the name of the actor" in asked.content.decode()
    sent = {"ids": letter.pk, "back": "detail", "confirmed": "yes", "reason": ""}
    for name in ("", "Transfer"):
        assert client.post(act, {**sent, "confirmed_actor": name}).status_code == 200
        assert pending() == {letter.pk}
    assert client.post(act, {**sent, "confirmed_actor": "transfer"}).status_code == 302
    assert pending() == set()


def test_the_group_says_what_to_do(client):
    client.force_login(make_user("anna", "view_failuregroup"))
    group = make_group(actor="transfer", queue="payments")
    html = client.get(
        reverse("admin:queueadmin_failuregroup_change", args=[group.pk])
    ).content.decode()

    assert "Ask the bank first." in html


@pytest.mark.parametrize("text", HOSTILE)
def test_a_runbook_is_text(client, broker, text):
    @dramatiq.actor(broker=broker, queue_name="payments", runbook=text)
    def refund() -> None:
        """Never run here."""

    letter = make_dead_letter(job={"queue": "payments", "actor": "refund"})
    client.force_login(make_user("anna", "view_deadletter"))
    html = client.get(
        reverse("admin:queueadmin_deadletter_change", args=[letter.pk])
    ).content.decode()

    assert "<script>alert" not in html
    assert "<img" not in html


def test_a_command_takes_the_name_for_one_only():
    one, other = make_unsafe(), make_unsafe()

    with pytest.raises(SystemExit):
        call_command("queueadmin", "requeue", str(one.pk))
    with pytest.raises(CommandError, match="one dead letter"):
        call_command("queueadmin", "requeue", str(one.pk), str(other.pk), "--confirm", "transfer")
    assert pending() == {one.pk, other.pk}
    call_command("queueadmin", "requeue", str(one.pk), "--confirm", "transfer")
    assert pending() == {other.pk}


def test_what_actors_declare_is_checked(broker):
    @dramatiq.actor(broker=broker, runbook=["Ask."], replay_safe="no")
    def refund() -> None:
        """Never run here."""

    errors = checks.check_runbooks()
    assert {error.id for error in errors} == {"queueadmin.E004"}
    assert [error.msg for error in errors] == [
        "runbook of the actor refund must be str, not ['Ask.'].",
        "replay_safe of the actor refund must be bool, not 'no'.",
    ]


def test_an_unknown_actor_has_said_nothing():
    assert runbooks.runbook_of("nobody") == ""
    assert runbooks.is_safe("nobody")
    letter = make_dead_letter()
    assert deadletters.requeue([letter.pk], by=None).done == 1
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.REQUEUED
