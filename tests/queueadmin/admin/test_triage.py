"""Triage by page: whose turn, until when, and the rules that say so beforehand."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from queueadmin import deadletters, failuregroups
from queueadmin.clock import now
from queueadmin.models import AssignmentRule, AuditEntry, DeadLetter
from tests.queueadmin.admin.test_dead_letter_admin import LIST, act, confirm, page, shown
from tests.queueadmin.rows import TRIAGE, make_dead_letter, make_group, make_user

RULES = "/admin/queueadmin/assignmentrule/"


def tabs(client: Client, address: str = LIST) -> dict[str, int]:
    found = client.get(address).context["cl"].tabs
    return {str(tab.label): tab.count for tab in found}


def test_what_is_snoozed_is_in_its_own_tab_and_in_none_that_asks_for_work(anna: Client) -> None:
    letter, other = make_dead_letter(), make_dead_letter()
    deadletters.assign([letter.pk], to=get_user_model().objects.get(username="anna"), by=None)
    until = (now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")

    confirm(anna, "snooze", letter, until=until, more_failures="", reason="vendor asked")

    assert shown(anna) == {other.pk}
    assert shown(anna, "?status=snoozed") == {letter.pk}
    assert tabs(anna) == {
        "mine": 0,
        "unassigned": 1,
        "mentions": 0,
        "pending": 1,
        "snoozed": 1,
        "requeued": 0,
        "recovered": 0,
        "permanently failed": 0,
        "all": 2,
    }
    text = anna.get(page(letter)).content.decode()
    assert "vendor asked" in text
    assert f"until {until[:10]}" in text


def test_a_snooze_that_ends_in_the_past_is_explained_at_the_form(anna: Client) -> None:
    letter = make_dead_letter()

    answer = confirm(anna, "snooze", letter, until="2001-01-01T00:00")

    assert "The end of a snooze lies in the future." in answer.content.decode()
    letter.refresh_from_db()
    assert not letter.is_snoozed


def test_waking_needs_no_second_press(anna: Client) -> None:
    letter = make_dead_letter(snoozed_at=now())

    anna.post(act("wake"), {"ids": letter.pk, "back": "detail"})

    assert shown(anna) == {letter.pk}


@pytest.mark.parametrize("verb", ["snooze", "wake", "set-due", "link-ticket"])
def test_a_viewer_may_not_triage(viewer: Client, verb: str) -> None:
    letter = make_dead_letter()

    assert confirm(viewer, verb, letter, url="https://example.com/").status_code == 403


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"died_at": timedelta(minutes=-5)}, None),
        ({"died_at": timedelta(days=-2)}, "old"),
        ({"died_at": timedelta(days=-8)}, "very old"),
        ({"due_at": timedelta(hours=-2, minutes=-1)}, "overdue 2\N{NO-BREAK SPACE}h"),
        ({"due_at": timedelta(hours=2, minutes=1)}, "due in 2\N{NO-BREAK SPACE}h"),
        ({"due_at": timedelta(days=3, minutes=1)}, "due in 3\N{NO-BREAK SPACE}d"),
    ],
)
def test_the_age_says_in_words_how_late_it_is(
    anna: Client, fields: dict[str, timedelta], words: str | None
) -> None:
    make_dead_letter(**{name: now() + length for name, length in fields.items()})

    row = anna.get(LIST).content.decode().split('class="field-age', 1)[1].split("</td>", 1)[0]

    assert (f">{words}<" in row) if words else ("old" not in row and "due" not in row)


def test_a_due_date_and_a_ticket_are_on_the_page_and_in_the_file(anna: Client) -> None:
    letter = make_dead_letter(release="5.2")
    make_group(fingerprint="", first_release="5.1")

    confirm(anna, "set-due", letter, at="2040-05-05T10:00")
    confirm(anna, "link-ticket", letter, url="https://example.com/T-1")

    text = anna.get(page(letter)).content.decode()
    assert 'href="https://example.com/T-1"' in text
    assert "2040-05-05" in text
    assert "release 5.2" in text
    assert "release 5.1" in text  # first seen in
    file = b"".join(anna.get(f"{LIST}export/csv/"))  # type: ignore[call-overload]
    assert b"https://example.com/T-1" in file


def test_mentions_are_found_in_one_tab(anna: Client) -> None:
    letter, group = make_dead_letter(), make_group()
    make_dead_letter()
    me = get_user_model().objects.get(username="anna")
    deadletters.annotate(letter.pk, text="@anna have a look", by=None)
    deadletters.close([letter.pk], by=None, reason="x")
    me.user_permissions.add(*_permissions("view_failuregroup"))
    failuregroups.annotate(group.pk, text="@anna have a look", by=None)

    assert shown(anna, "?status=mentions") == {letter.pk}
    assert tabs(anna, "/admin/queueadmin/failuregroup/")["mentions"] == 1


def _permissions(*names: str) -> Any:
    from django.contrib.auth.models import Permission

    return Permission.objects.filter(codename__in=names)


def test_a_lead_writes_rules_and_each_change_is_audited(lead: Client) -> None:
    owner = make_user("owner", *TRIAGE)
    form = {"position": 1, "queue": "sms*", "assignee": owner.pk, "is_active": "on"}

    lead.post(f"{RULES}add/", form)
    rule = AssignmentRule.objects.get()
    lead.post(f"{RULES}{rule.pk}/change/", {**form, "due_hours": 24})
    assert "sms*" in lead.get(RULES).content.decode()
    lead.post(f"{RULES}{rule.pk}/delete/", {"post": "yes"})

    assert not AssignmentRule.objects.exists()
    verbs = AuditEntry.objects.order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["add rule", "change rule", "delete rule"]


def test_a_rule_names_nobody_who_could_not_look(lead: Client) -> None:
    blind = make_user("blind")

    answer = lead.post(f"{RULES}add/", {"position": 1, "assignee": blind.pk})

    assert "may not see dead letters" in answer.content.decode()
    assert not AssignmentRule.objects.exists()


def test_rules_are_closed_to_who_may_only_triage(anna: Client) -> None:
    assert anna.get(RULES).status_code == 403
    assert anna.post(f"{RULES}add/", {"position": 1}).status_code == 403


def test_counting_what_waits_beside_what_sleeps_stays_right_beyond_the_limit(
    anna: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueadmin.admin.lists.COUNT_LIMIT", 2)
    for _number in range(5):
        make_dead_letter()
    asleep = DeadLetter.objects.order_by("pk").values_list("pk", flat=True)[:3]
    DeadLetter.objects.filter(pk__in=list(asleep)).update(snoozed_at=now())

    counts = tabs(anna)

    assert (counts["pending"], counts["snoozed"]) == (2, 3)
