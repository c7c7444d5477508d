"""The page that changes one argument of a whole group."""

import json
from typing import Any

import dramatiq
import pytest
from django.test import Client

from queueadmin.models import DeadLetter, RequeueOperation
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_group

NEW = "/admin/queueadmin/requeueoperation/new/"
FORM = {
    "name": "Country",
    "reason": "They forgot it",
    "canary": 1,
    "stop_at_percent": 20,
    "rate": 20,
    "argument": "phone",
    "before": "0171 5",
    "after": "+49171 5",
    "change": 1,
}


@pytest.fixture
def group(db: None, broker: Any) -> Any:
    @dramatiq.actor(queue_name="whatsapp-messages", broker=broker)
    def send_order_confirmation(order: int, phone: str) -> None: ...

    for number, phone in enumerate(("0171 5", "0171 5", "0172")):
        message = {
            "queue_name": "whatsapp-messages",
            "actor_name": "send_order_confirmation",
            "args": [number, phone],
            "kwargs": {},
            "options": {},
            "message_id": f"job-{number}",
            "message_timestamp": 1,
        }
        job = {"id": f"job-{number}", "message": json.dumps(message).encode()}
        make_dead_letter(job=job, fingerprint="f")
    return make_group(fingerprint="f")


def send(client: Client, group: Any, stage: str, **fields: Any) -> Any:
    ids = ",".join(str(pk) for pk in DeadLetter.objects.values_list("pk", flat=True))
    return client.post(NEW, {**FORM, "group": group.pk, "ids": ids, "stage": stage, **fields})


def test_a_lead_changes_an_argument_of_a_group_and_sees_what_is_left_out(
    lead: Client, group: Any
) -> None:
    page = lead.get(f"/admin/queueadmin/failuregroup/{group.pk}/change/").content.decode()
    assert f"{NEW}?group={group.pk}&amp;change=1" in page
    first = lead.get(f"{NEW}?group={group.pk}&change=1").content.decode()
    assert "0171 5 (×2), 0172 (×1)" in first  # what to put in
    preview = send(lead, group, "preview").content.decode()
    assert "Start (2)" in preview
    assert "1 skipped: its argument has another value" in preview
    assert "<ins>+49171 5</ins>" in preview
    assert not RequeueOperation.objects.exists()

    answer = send(lead, group, "confirmed")

    operation = RequeueOperation.objects.get()
    assert (operation.argument, operation.argument_after) == ("phone", "+49171 5")
    page = lead.get(answer.url).content.decode()
    assert "phone" in page
    assert "+49171 5" in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"before": "0173"}, "None of these dead letters has this value."),
        ({"argument": "order", "before": "0", "after": '"one"'}, "order must be int"),
        ({"argument": "order", "before": "0", "after": "{"}, "must be JSON"),
    ],
)
def test_what_fits_nothing_is_said_beside_the_field(
    lead: Client, group: Any, fields: dict[str, str], words: str
) -> None:
    html = send(lead, group, "confirmed", **fields).content.decode()

    assert words in html.replace("&quot;", '"')
    assert not RequeueOperation.objects.exists()


def test_a_person_who_may_only_requeue_sees_why_not_and_is_refused(
    anna: Client, group: Any
) -> None:
    assert send(anna, group, "confirmed").status_code == 403
    assert not RequeueOperation.objects.exists()


# What somebody types comes back in the field as it was typed.
@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable()])
def test_hostile_values_are_shown_as_text(lead: Client, group: Any, text: str) -> None:
    text = text[:9_000]

    assert_text_only(send(lead, group, "preview", before=text, after=text))
    assert_text_only(send(lead, group, "preview", after=text))
