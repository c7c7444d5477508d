"""The page of edit and requeue."""

import json

import dramatiq
import pytest
from django.urls import reverse

from queueadmin.models import DeadLetter, Job
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_user


@pytest.fixture
def letter(db, broker):
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def send_order_confirmation(order: int, phone: str, token: str = "") -> None: ...

    return dead(phone="0171 5")


def dead(**kwargs):
    message = {
        "queue_name": "whatsapp-messages",
        "actor_name": "send_order_confirmation",
        "args": [12],
        "kwargs": kwargs,
        "options": {},
        "message_id": "12345678-aaaa",
        "message_timestamp": 1,
    }
    job = {"id": "12345678-aaaa", "message": json.dumps(message).encode()}
    return make_dead_letter(job=job)


def page(letter):
    return reverse("admin:queueadmin_deadletter_edit", args=[letter.pk])


def values(response, **changed):
    """Return what a browser would send of the form that a page shows."""
    form = response.context["form"]
    names = [argument.name for argument in form.draft.arguments]
    sent = {f"argument-{names.index(name)}": text for name, text in changed.items()}
    shown = {field.html_name: field.value() or "" for field in form if not field.field.disabled}
    hidden = {"version": form.draft.version, "seen": response.context["seen"]}
    return {**shown, **hidden, **sent}


def test_nothing_happens_before_the_difference_was_seen(
    lead, letter, django_capture_on_commit_callbacks
):
    first = lead.get(page(letter))
    assert "0171 5" in first.content.decode()
    forced = lead.post(page(letter), {**values(first, phone="+49171 5"), "confirmed": "yes"})
    assert forced.status_code == 200
    assert "+49171 5" in forced.content.decode()
    assert DeadLetter.objects.get().status == DeadLetterStatus.PENDING

    with django_capture_on_commit_callbacks():
        done = lead.post(page(letter), {**values(forced), "confirmed": "yes"}, follow=True)
    assert done.redirect_chain
    assert "Requeued with changed phone." in done.content.decode()
    assert "lead changed phone" in done.content.decode()
    job = Job.objects.get()
    assert job.state == JobState.WAITING
    assert json.loads(bytes(job.message))["kwargs"]["phone"] == "+49171 5"


def test_pressed_twice_it_says_that_it_was_done(lead, letter, django_capture_on_commit_callbacks):
    shown = lead.post(page(letter), values(lead.get(page(letter)), phone="+1"))
    with django_capture_on_commit_callbacks():
        lead.post(page(letter), {**values(shown), "confirmed": "yes"})
        again = lead.post(page(letter), {**values(shown), "confirmed": "yes"}, follow=True)
    assert "not pending any more" in again.content.decode()
    assert Job.objects.get().requeues == 1


def test_a_wrong_value_is_shown_at_its_argument(lead, letter):
    answer = lead.post(page(letter), values(lead.get(page(letter)), order='"twelve"'))
    assert answer.context["form"].errors.keys() == {"argument-0"}
    assert "must be int" in answer.content.decode()


def test_a_masked_value_is_neither_shown_nor_taken(lead, broker, letter):
    DeadLetter.objects.all().delete()
    Job.objects.all().delete()
    letter = dead(phone="1", token="hunter2")
    first = lead.get(page(letter))
    assert "hunter2" not in first.content.decode()
    assert "disabled" in first.content.decode()
    sent = values(first, phone="+1") | {"argument-2": "stolen"}
    shown = lead.post(page(letter), sent)
    assert [change.name for change in shown.context["changes"]] == ["phone"]


@pytest.mark.parametrize("permissions", [(), ("requeue_deadletter",), ("edit_deadletter",)])
def test_without_both_permissions_there_is_no_button_and_no_page(client, letter, permissions):
    client.force_login(make_user("vera", "view_deadletter", "view_job", *permissions))
    detail = client.get(reverse("admin:queueadmin_deadletter_change", args=[letter.pk]))
    assert page(letter) not in detail.content.decode()
    assert client.get(page(letter)).status_code == 403
    assert client.post(page(letter), {"confirmed": "yes"}).status_code == 403
    assert DeadLetter.objects.get().status == DeadLetterStatus.PENDING


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_arguments_show_as_text(lead, broker, letter, text):
    DeadLetter.objects.all().delete()
    Job.objects.all().delete()
    letter = dead(phone=text)
    first = lead.get(page(letter))
    assert_text_only(first)
    # What people could not see all of is shown and written as JSON.
    is_plain = first.context["draft"].arguments[1].is_plain
    shown = lead.post(page(letter), values(first, phone="+1" if is_plain else '"+1"'))
    assert_text_only(shown)
    assert [change.before for change in shown.context["changes"]] == [
        first.context["draft"].arguments[1].text
    ]


def test_an_unreadable_message_leads_back_with_the_reason(lead, broker, db):
    letter = make_dead_letter(job={"message": b"\xff"})
    answer = lead.get(page(letter), follow=True)
    assert "cannot be read" in answer.content.decode()


def test_the_form_names_a_default_unless_its_name_is_that_of_a_secret(lead, broker):
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def send_order_confirmation(
        order: int, language: str = "en", retry_in: int = 60, token: str = "inside"
    ) -> None: ...

    html = lead.get(page(dead())).content.decode()

    assert "empty means the default, &quot;en&quot;" in html
    assert "empty means the default, 60" in html
    assert "inside" not in html
