from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from queueadmin.models import AuditEntry, DeadLetter, Note
from queueadmin.models.dead_letter import Urgency
from queueadmin.states import DeadLetterStatus
from tests.queueadmin.rows import TRIAGE, make_dead_letter, make_user

LIST = "/admin/queueadmin/deadletter/"


def act(name: str) -> str:
    return reverse("admin:queueadmin_deadletter_act", args=[name])


def page(letter: DeadLetter) -> str:
    return reverse("admin:queueadmin_deadletter_change", args=[letter.pk])


def shown(client: Client, query: str = "") -> set[int]:
    response = client.get(f"{LIST}{query}")
    assert response.status_code == 200
    return {row.pk for row in response.context["cl"].result_list}


def confirm(client: Client, name: str, *letters: DeadLetter, **fields: Any) -> Any:
    ids = ",".join(str(letter.pk) for letter in letters)
    return client.post(act(name), {"ids": ids, "confirmed": "yes", **fields}, follow=True)


def test_the_list_opens_on_what_is_pending(anna: Client) -> None:
    pending = make_dead_letter()
    make_dead_letter(status=DeadLetterStatus.RECOVERED)

    assert shown(anna) == {pending.pk}


def test_tabs_count_what_they_show_under_filters_and_search(anna: Client) -> None:
    me = get_user_model().objects.get(username="anna")
    mine = make_dead_letter(assignee=me)
    make_dead_letter(job={"queue": "sms-notifications"})
    make_dead_letter(status=DeadLetterStatus.REQUEUED)

    tabs = anna.get(LIST, {"queue": "whatsapp-messages"}).context["cl"].tabs

    counts = {str(tab.label): tab.count for tab in tabs}
    assert counts["mine"] == 1
    assert counts["pending"] == 1
    assert counts["requeued"] == 1
    assert counts["all"] == 2
    for tab in tabs:
        assert len(shown(anna, tab.url)) == tab.count
    assert shown(anna, "?status=mine") == {mine.pk}


@pytest.mark.parametrize(
    "query",
    [
        "?queue=sms-notifications",
        "?actor=send_sms",
        "?died_by__exact=time_limit",
        "?urgency__exact=3",
        "?status=unassigned",
        "?q=needle",
        "?q=Haystack",
        "?q=orders.order:7",
        "?q=abcd1234",
    ],
)
def test_filters_and_search_find_the_one(anna: Client, query: str) -> None:
    other = make_user("other", *TRIAGE)
    make_dead_letter(assignee=other)
    one = make_dead_letter(
        job={
            "id": "abcd1234-x",
            "queue": "sms-notifications",
            "actor": "send_sms",
            "subject": "orders.order:7",
        },
        died_by="time_limit",
        urgency=Urgency.URGENT,
        error_class="HaystackError",
        error_message="a needle",
    )

    assert shown(anna, query) == {one.pk}


def test_the_owner_filter_offers_and_finds_owners(anna: Client) -> None:
    other = make_user("other", *TRIAGE)
    make_dead_letter()
    one = make_dead_letter(assignee=other)

    assert shown(anna, f"?owner={other.pk}") == {one.pk}


@pytest.mark.parametrize("query", ["?q=%00", "?queue=%00", "?actor=%00", "?owner=x", "?status=x"])
def test_a_hostile_address_breaks_no_list(anna: Client, query: str) -> None:
    make_dead_letter()

    assert anna.get(LIST + query).status_code == 200


def test_the_list_takes_as_many_queries_for_thirty_rows_as_for_one(
    anna: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    me = get_user_model().objects.get(username="anna")
    for number in range(30):
        make_dead_letter(assignee=me if number % 2 else None)
    with django_assert_num_queries(21):
        anna.get(LIST)
    DeadLetter.objects.exclude(pk=DeadLetter.objects.first().pk).delete()  # type: ignore[union-attr]

    with django_assert_num_queries(21):
        anna.get(LIST)


def test_the_page_answers_first_then_shows_the_evidence(anna: Client) -> None:
    letter = make_dead_letter(job={"subject": "orders.order:7"})

    html = anna.get(page(letter)).content.decode()

    assert "permanent: a repeat will not help until the cause is corrected" in html
    assert "channels/whatsapp.py:77 · send" in html
    assert "1 library frame" in html
    assert "hunter2" not in html
    assert "••••" in html
    assert "orders.order:7" in html


def test_a_page_takes_a_fixed_number_of_queries(
    anna: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    letter = make_dead_letter()
    for number in range(20):
        Note.objects.create(
            dead_letter=letter, author_name="ben", text=str(number), written_at=letter.died_at
        )

    with django_assert_num_queries(9):
        anna.get(page(letter))


def test_requeue_asks_first_and_a_look_changes_nothing(anna: Client) -> None:
    letter = make_dead_letter()

    html = anna.get(act("requeue"), {"ids": str(letter.pk), "back": "detail"}).content.decode()

    assert "1 job gets a new round of attempts" in html
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING


@pytest.mark.parametrize("action", ["requeue", "assign", "set_priority", "mark_failed"])
def test_a_list_action_asks_in_numbers_before_it_acts(anna: Client, action: str) -> None:
    letters = [make_dead_letter(), make_dead_letter(status=DeadLetterStatus.RECOVERED)]
    chosen = {"action": action, "_selected_action": [letter.pk for letter in letters]}

    html = anna.post(f"{LIST}?status=all", chosen).content.decode()

    assert "2 selected" in html
    assert "1 skipped: already recovered" in html
    assert not AuditEntry.objects.exists()


def test_requeue_confirmed_says_what_was_done_and_skipped(anna: Client) -> None:
    letters = [make_dead_letter(), make_dead_letter(status=DeadLetterStatus.RECOVERED)]

    html = confirm(anna, "requeue", *letters, reason="provider is back").content.decode()

    assert "Requeued 1 dead letter." in html
    assert "Skipped 1: already recovered." in html
    entry = AuditEntry.objects.get()
    assert (entry.user_name, entry.reason) == ("anna", "provider is back")


def test_requeue_pressed_twice_says_so_the_second_time(anna: Client) -> None:
    letter = make_dead_letter()
    confirm(anna, "requeue", letter, back="detail")

    html = confirm(anna, "requeue", letter, back="detail").content.decode()

    assert "Skipped 1: already requeued." in html
    assert AuditEntry.objects.count() == 1


def test_marking_failed_insists_on_a_reason(anna: Client) -> None:
    letter = make_dead_letter()

    refused = confirm(anna, "mark-failed", letter, reason="  ").content.decode()
    letter.refresh_from_db()
    assert "This field is required" in refused
    assert letter.status == DeadLetterStatus.PENDING

    confirm(anna, "mark-failed", letter, reason="shop closed", back="detail")
    letter.refresh_from_db()
    assert letter.closing_reason == "shop closed"


def test_assigning_to_another_and_to_me(anna: Client) -> None:
    letter, ben = make_dead_letter(), make_user("ben", *TRIAGE)

    confirm(anna, "assign", letter, to=ben.pk)
    letter.refresh_from_db()
    assert letter.assignee == ben

    anna.post(act("assign-to-me"), {"ids": letter.pk, "back": "detail"})
    letter.refresh_from_db()
    assert letter.assignee is not None
    assert letter.assignee.get_username() == "anna"


def test_assign_to_me_works_from_the_list_at_once(anna: Client) -> None:
    letter = make_dead_letter()

    response = anna.post(
        f"{LIST}?status=unassigned", {"action": "assign_to_me", "_selected_action": letter.pk}
    )

    assert response.headers["Location"] == f"{LIST}?status=unassigned"
    letter.refresh_from_db()
    assert letter.assignee is not None


def test_looking_at_assign_to_me_assigns_nothing(anna: Client) -> None:
    letter = make_dead_letter()

    anna.get(act("assign-to-me"), {"ids": str(letter.pk), "confirmed": "yes"})

    letter.refresh_from_db()
    assert letter.assignee is None


def test_an_owner_who_may_not_see_dead_letters_is_refused_in_the_form(anna: Client) -> None:
    letter, stranger = make_dead_letter(), make_user("stranger")

    html = confirm(anna, "assign", letter, to=stranger.pk).content.decode()

    assert "may not see dead letters" in html


def test_setting_the_priority(anna: Client) -> None:
    letter = make_dead_letter()

    confirm(anna, "set-priority", letter, urgency=Urgency.URGENT.value)

    letter.refresh_from_db()
    assert letter.urgency == Urgency.URGENT


def test_notes_by_several_people_are_text_with_their_lines(anna: Client) -> None:
    letter = make_dead_letter()
    address = reverse("admin:queueadmin_deadletter_note", args=[letter.pk])
    ben = Client()
    ben.force_login(make_user("ben", *TRIAGE))

    anna.post(address, {"text": "first\r\n<b>line</b> two"})
    ben.post(address, {"text": "second"})

    html = anna.get(page(letter)).content.decode()
    assert "first\n&lt;b&gt;line&lt;/b&gt; two" in html
    assert html.index("first") < html.index("second")


def test_an_empty_note_is_refused_on_the_page(anna: Client) -> None:
    letter = make_dead_letter()

    response = anna.post(
        reverse("admin:queueadmin_deadletter_note", args=[letter.pk]), {"text": ""}
    )

    assert "This field is required" in response.content.decode()
    assert not Note.objects.exists()


@pytest.mark.parametrize(
    "name", ["requeue", "assign-to-me", "assign", "set-priority", "mark-failed"]
)
def test_a_forged_post_by_a_viewer_is_forbidden(viewer: Client, name: str) -> None:
    letter = make_dead_letter()
    fields = {"ids": letter.pk, "confirmed": "yes", "reason": "x", "urgency": 3}

    assert viewer.post(act(name), fields).status_code == 403
    assert viewer.get(act(name), {"ids": letter.pk}).status_code == 403
    action = {"action": name.replace("-", "_"), "_selected_action": letter.pk}
    assert viewer.post(LIST, action).status_code == 403

    assert not AuditEntry.objects.exists()


def test_a_forged_note_by_a_viewer_is_forbidden(viewer: Client) -> None:
    letter = make_dead_letter()
    address = reverse("admin:queueadmin_deadletter_note", args=[letter.pk])

    assert viewer.post(address, {"text": "x"}).status_code == 403
    assert not Note.objects.exists()


def test_a_viewer_sees_disabled_buttons_that_say_why(viewer: Client) -> None:
    letter = make_dead_letter()

    html = viewer.get(page(letter)).content.decode()

    assert html.count("You lack the permission for this.") == 9
    assert "You lack the permission to write notes." in html
    assert "Add note" not in html


def test_a_closed_dead_letter_says_why_nothing_can_be_done(anna: Client) -> None:
    letter = make_dead_letter(status=DeadLetterStatus.RECOVERED)

    html = anna.get(page(letter)).content.decode()

    assert "Its repeat completed; nothing is left to do." in html


def test_who_may_not_view_sees_nothing(stranger: Client) -> None:
    letter = make_dead_letter()

    assert stranger.get(LIST).status_code == 403
    assert stranger.get(page(letter)).status_code == 403
    assert stranger.get(act("requeue"), {"ids": letter.pk}).status_code == 403


@pytest.mark.django_db
def test_a_verb_without_permission_to_view_is_no_way_in() -> None:
    client = Client()
    letter = make_dead_letter()
    client.force_login(make_user("blind", "requeue_deadletter", "annotate_deadletter"))

    assert confirm(client, "requeue", letter).status_code == 403


def test_a_post_without_token_is_refused(anna: Client) -> None:
    letter = make_dead_letter()
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = anna.cookies

    assert strict.post(act("requeue"), {"ids": letter.pk, "confirmed": "yes"}).status_code == 403


def test_the_page_itself_takes_no_post(anna: Client) -> None:
    letter = make_dead_letter()

    assert anna.post(page(letter), {"status": "recovered"}).status_code == 405
    assert anna.post(f"{LIST}{letter.pk}/delete/", {"post": "yes"}).status_code == 403
    assert anna.get(f"{LIST}add/").status_code == 403


@pytest.mark.parametrize("ids", ["", "x", "1;2", "٣", "1" * 30, "-1"])
def test_a_broken_list_of_ids_is_a_bad_request(anna: Client, ids: str) -> None:
    assert anna.post(act("requeue"), {"ids": ids, "confirmed": "yes"}).status_code == 400


def test_an_unknown_verb_or_dead_letter_is_not_found(anna: Client) -> None:
    assert anna.get(act("explode"), {"ids": 1}).status_code == 404
    note = reverse("admin:queueadmin_deadletter_note", args=[99])
    assert anna.post(note, {"text": "x"}).status_code == 404
    assert anna.get(f"{LIST}99/change/").status_code == 302
    assert anna.get(f"{LIST}%00/change/").status_code == 302


@override_settings(QUEUEADMIN={"BULK_LIMIT": 2})
def test_more_than_the_limit_is_said_before_anything_happens(anna: Client) -> None:
    letters = [make_dead_letter() for _number in range(3)]
    chosen = {"action": "requeue", "_selected_action": [letter.pk for letter in letters]}

    html = anna.post(LIST, chosen).content.decode()

    assert "1 left out: more than one action may touch" in html
    assert "2 jobs get a new round of attempts" in html


def test_filters_survive_an_action(anna: Client) -> None:
    letter = make_dead_letter()

    response = anna.post(
        act("requeue"), {"ids": letter.pk, "confirmed": "yes", "back": "queue=whatsapp-messages"}
    )

    assert response.headers["Location"] == f"{LIST}?queue=whatsapp-messages"
