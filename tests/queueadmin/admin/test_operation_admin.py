from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from queueadmin import operations
from queueadmin.models import AuditEntry, RequeueOperation
from queueadmin.states import DeadLetterStatus, OperationStatus
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_group

LIST = "/admin/queueadmin/requeueoperation/"
NEW = f"{LIST}new/"
FORM = {
    "name": "outage",
    "reason": "provider is back",
    "canary": "2",
    "stop_at_percent": "20",
    "rate": "5",
    "start_at": "",
}


def page(operation: RequeueOperation) -> str:
    return reverse("admin:queueadmin_requeueoperation_change", args=[operation.pk])


def begin(number: int = 1, **options: Any) -> RequeueOperation:
    letters = [make_dead_letter().pk for _number in range(number)]
    return operations.create(letters, by=None, **{"name": "outage", **options})


def do(client: Client, operation: RequeueOperation, name: str, **fields: Any) -> Any:
    address = reverse("admin:queueadmin_requeueoperation_do", args=[operation.pk, name])
    return client.post(address, {"confirmed": "yes", **fields}, follow=True)


def test_a_selection_is_previewed_confirmed_in_numbers_and_begun(anna: Client) -> None:
    letters = [make_dead_letter() for _number in range(3)]
    closed = make_dead_letter(status=DeadLetterStatus.PERMANENTLY_FAILED)
    ids = ",".join(str(letter.pk) for letter in (*letters, closed))
    chosen = {
        "action": "requeue_guarded",
        "_selected_action": [letter.pk for letter in (*letters, closed)],
    }

    first = anna.post("/admin/queueadmin/deadletter/?status=all", chosen).content.decode()
    second = anna.post(NEW, {**FORM, "ids": ids, "stage": "preview"}).content.decode()
    assert "3 jobs can be requeued" in first
    assert "1 skipped: already marked permanently failed" in first
    assert "2 jobs run first" in second
    assert "the other 1 follow, 5 per second" in second
    assert not RequeueOperation.objects.exists()

    third = anna.post(NEW, {**FORM, "ids": ids, "stage": "confirmed"}, follow=True)
    operation = RequeueOperation.objects.get()
    assert third.redirect_chain[-1][0] == page(operation)
    assert (operation.owner_name, operation.total) == ("anna", 4)
    assert operation.items.filter(state="waiting").count() == 3


def test_a_group_is_requeued_from_its_page(anna: Client, lead: Client) -> None:
    group = make_group()
    for _number in range(2):
        make_dead_letter(fingerprint=group.fingerprint)
    make_dead_letter()

    html = lead.get(f"{NEW}?group={group.pk}").content.decode()

    assert "2 jobs can be requeued" in html
    assert f'name="group" value="{group.pk}"' in html


def test_a_group_beyond_the_limit_says_how_many_are_left(
    anna: Client, lead: Client, settings: Any
) -> None:
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "BULK_LIMIT": 2}
    group = make_group()
    letters = [make_dead_letter(fingerprint=group.fingerprint) for _number in range(5)]
    ids = ",".join(str(letter.pk) for letter in letters[:2])
    left = "3 left for another operation"

    first = lead.get(f"{NEW}?group={group.pk}").content.decode()
    chosen = {"ids": ids, "group": group.pk, "stage": "preview"}
    second = lead.post(NEW, {**FORM, **chosen}).content.decode()
    assert "2 jobs can be requeued" in first
    assert left in first
    assert left in second

    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "BULK_LIMIT": 5}
    assert "left for another" not in lead.get(f"{NEW}?group={group.pk}").content.decode()


def test_what_is_wrong_in_the_form_is_said_beside_it(anna: Client) -> None:
    letter = make_dead_letter()

    answer = anna.post(NEW, {**FORM, "ids": str(letter.pk), "rate": "0", "stage": "confirmed"})

    assert answer.context["form"].errors["rate"]
    assert not RequeueOperation.objects.exists()


@pytest.mark.parametrize("fields", [{"ids": "1;2"}, {"ids": ""}, {}])
def test_a_list_that_none_of_our_pages_wrote_is_refused(
    anna: Client, fields: dict[str, str]
) -> None:
    assert anna.post(NEW, {**FORM, **fields, "stage": "confirmed"}).status_code == 400


def test_how_long_it_takes_is_said_without_the_time_until_it_starts(anna: Client) -> None:
    operation = begin(1)
    RequeueOperation.objects.update(start_at=timezone.now() + timedelta(days=3), rate=0.5)

    html = anna.get(page(operation)).content.decode()

    assert "with 1 job. What is to come takes about 2.0 s." in html


def test_the_page_says_how_far_it_is(anna: Client) -> None:
    operation = begin(3, canary=2)

    assert "It starts" in anna.get(page(operation)).content.decode()
    operations.carry_on()
    html = anna.get(page(operation)).content.decode()

    assert "The canary runs: 0 of 2 ended" in html
    assert "3" in anna.get(f"{page(operation)}?state=waiting").content.decode()


@pytest.mark.parametrize("status", OperationStatus.values)
def test_the_page_of_every_status_says_what_comes_next(anna: Client, status: str) -> None:
    operation = begin()
    RequeueOperation.objects.update(status=status)

    assert anna.get(page(operation)).context["sentence"]


def test_it_is_paused_resumed_and_aborted_from_its_page(anna: Client) -> None:
    operation = begin()
    for name, status in (("pause", "paused"), ("resume", "scheduled"), ("abort", "aborted")):
        do(anna, operation, name, reason="")
        operation.refresh_from_db()
        assert operation.status == status

    assert AuditEntry.objects.filter(user_name="anna").count() == 3


@pytest.mark.parametrize("name", ["pause", "resume", "abort"])
def test_a_forged_verb_is_refused(viewer: Client, name: str) -> None:
    operation = begin()

    assert do(viewer, operation, name).status_code == 403
    assert viewer.post(NEW, {**FORM, "ids": "1", "stage": "confirmed"}).status_code == 403
    assert "You lack the permission for this." in viewer.get(page(operation)).content.decode()


def test_who_may_not_view_sees_nothing(stranger: Client) -> None:
    assert stranger.get(LIST).status_code == 403
    assert stranger.get(page(begin())).status_code == 403


def test_pages_take_a_fixed_number_of_queries(
    anna: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    operation = begin(1)
    with django_assert_num_queries(8):
        anna.get(page(operation))
    with django_assert_num_queries(14):
        anna.get(LIST)
    operation = begin(40)
    begin(3)

    with django_assert_num_queries(8):
        anna.get(page(operation))
    with django_assert_num_queries(14):
        anna.get(LIST)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_as_text(anna: Client, text: str) -> None:
    operation = begin(1, name=text[:300] or "x", reason=text)
    operations.pause(operation.pk, by=None, reason=text.replace("\0", ""))

    assert_text_only(anna.get(page(operation)))
    assert_text_only(anna.get(LIST))
