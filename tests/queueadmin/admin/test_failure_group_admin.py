from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from queueadmin import failuregroups, operations
from queueadmin.clock import now
from queueadmin.models import AuditEntry, FailureGroup, OperationItem
from queueadmin.states import GroupStatus
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_dead_letter, make_group

LIST = "/admin/queueadmin/failuregroup/"
VERBS = {
    "resolve": {"what_was_done": "restarted the proxy"},
    "reopen": {"reason": ""},
    "snooze": {"more_failures": "5"},
    "assign-to-me": {},
    "assign": {"to": ""},
    "link-ticket": {"url": "https://tickets.test/7"},
    "annotate": {"text": "found it"},
}


def page(group: FailureGroup) -> str:
    return reverse("admin:queueadmin_failuregroup_change", args=[group.pk])


def do(client: Client, group: FailureGroup, name: str, **fields: Any) -> Any:
    address = reverse("admin:queueadmin_failuregroup_do", args=[group.pk, name])
    return client.post(address, {"confirmed": "yes", **fields}, follow=True)


def test_every_number_of_the_matrix_leads_to_what_it_counts(lead: Client) -> None:
    group, other = make_group(), make_group()
    for hours in (0, 2, 10, 50, 100, 200):
        make_dead_letter(
            fingerprint=group.fingerprint, died_at=timezone.now() - timedelta(hours=hours)
        )
    make_dead_letter(fingerprint=other.fingerprint)

    shown = lead.get(LIST).context["cl"].result_list

    cells = {row.pk: row.cells for row in shown}[group.pk]
    assert [cell.count for cell in cells.values()] == [1, 2, 3, 4, 5]
    for window, cell in cells.items():
        found = lead.get(
            f"/admin/queueadmin/deadletter/?group={group.pk}&age={window}&status=all"
        ).context["cl"]
        assert found.result_count == cell.count
        assert f"group={group.pk}&amp;age={window}" in lead.get(LIST).content.decode()


@pytest.mark.parametrize("query", ["?q=G-{pk}", "?q=graph", "?status=snoozed", "?queue=sms"])
def test_tabs_filters_and_search_find_the_one(lead: Client, query: str) -> None:
    make_group(error_message="other")
    status = GroupStatus.SNOOZED if "status" in query else GroupStatus.OPEN
    one = make_group(status=status, queue="sms")

    shown = lead.get(LIST + query.format(pk=one.pk)).context["cl"].result_list

    assert [row.pk for row in shown] == [one.pk]


def test_the_list_takes_as_many_queries_for_twenty_rows_as_for_one(
    lead: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _number in range(20):
        make_group()
    with django_assert_num_queries(16):
        lead.get(LIST)
    FailureGroup.objects.exclude(pk=FailureGroup.objects.values("pk")[:1]).delete()

    with django_assert_num_queries(16):
        lead.get(LIST)


def test_the_page_links_its_evidence_to_the_dead_letters(lead: Client) -> None:
    group = make_group()
    for _number in range(3):
        make_dead_letter(fingerprint=group.fingerprint, release="5.2", worker="w3:1")
    failuregroups.resolve(group.pk, by=None, what_was_done="restarted")
    failuregroups.reopen(group.pk, by=None)

    response = lead.get(page(group))

    html = response.content.decode()
    assert "only release 5.2" in html
    assert "100 % of all failures then" in html
    assert "restarted" in html
    assert "Requeue 3" in html
    for _text, url in response.context["facts"]:
        assert lead.get(url).context["cl"].result_count == 3


def test_the_page_takes_a_fixed_number_of_queries(
    lead: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    group = make_group()
    make_dead_letter(fingerprint=group.fingerprint)
    with django_assert_num_queries(14):
        lead.get(page(group))
    for _number in range(10):
        make_dead_letter(fingerprint=group.fingerprint)

    with django_assert_num_queries(14):
        lead.get(page(group))


def test_verbs_ask_first_and_then_act_in_the_persons_name(lead: Client) -> None:
    group = make_group()
    address = reverse("admin:queueadmin_failuregroup_do", args=[group.pk, "resolve"])
    assert "comes back as regressed" in lead.get(address).content.decode()
    assert not AuditEntry.objects.exists()

    do(lead, group, "assign-to-me")
    do(lead, group, "resolve", what_was_done="restarted the proxy")

    group.refresh_from_db()
    me = get_user_model().objects.get(username="lead")
    assert (group.owner, group.resolved_by, group.status) == (me, me, GroupStatus.RESOLVED)
    assert set(AuditEntry.objects.values_list("user_name", flat=True)) == {"lead"}


def test_a_group_that_failed_again_since_it_was_looked_at_is_not_resolved(lead: Client) -> None:
    group = make_group(deaths=2)
    address = reverse("admin:queueadmin_failuregroup_do", args=[group.pk, "resolve"])
    form = lead.get(address).context["form"]
    assert 'name="seen_deaths" value="2"' in str(form)
    FailureGroup.objects.update(deaths=3)

    html = do(lead, group, "resolve", what_was_done="x", seen_deaths="2").content.decode()

    assert "Nothing was changed" in html
    group.refresh_from_db()
    assert group.status == GroupStatus.OPEN


def test_what_is_wrong_in_a_form_is_said_beside_it(lead: Client) -> None:
    group = make_group()

    assert (
        "http or https address"
        in do(lead, group, "link-ticket", url="javascript:alert(1)").content.decode()
    )
    assert (
        "lies in the future" in do(lead, group, "snooze", until="2020-01-01T00:00").content.decode()
    )
    assert do(lead, group, "resolve", what_was_done="").context["form"].errors
    assert not AuditEntry.objects.exists()


def test_a_verb_pressed_again_says_that_nothing_changed(lead: Client) -> None:
    group = make_group()
    do(lead, group, "annotate", text="first")
    failuregroups.resolve(group.pk, by=None, what_was_done="x")

    html = do(lead, group, "resolve", what_was_done="y").content.decode()

    assert "Nothing was changed" in html


@pytest.mark.parametrize("name", VERBS)
def test_a_forged_verb_is_refused(viewer: Client, name: str) -> None:
    group = make_group(status=GroupStatus.SNOOZED if name == "reopen" else GroupStatus.OPEN)

    assert do(viewer, group, name, **VERBS[name]).status_code == 403
    assert not AuditEntry.objects.exists()
    html = viewer.get(page(group)).content.decode()
    assert "You lack the permission for this." in html


def test_who_may_not_view_sees_nothing(stranger: Client) -> None:
    assert stranger.get(LIST).status_code == 403
    assert stranger.get(page(make_group())).status_code == 403


@pytest.mark.parametrize("address", ["99/change/", "x/change/", "99/do/resolve/", "%00/change/"])
def test_a_group_that_is_gone_leads_back(lead: Client, address: str) -> None:
    assert lead.get(LIST + address).status_code == 302


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_as_text(lead: Client, text: str) -> None:
    stored = text.replace("\0", "")
    group = make_group(
        error_class=stored[:200],
        error_message=stored,
        actor=stored[:200],
        queue=stored[:100],
        first_release=stored[:100],
        resolution=stored,
        status=GroupStatus.REGRESSED,
    )
    make_dead_letter(fingerprint=group.fingerprint, release=stored[:100], error_message=stored)
    do(lead, group, "annotate", text=text)

    assert_text_only(lead.get(LIST))
    assert_text_only(lead.get(page(group)))


@pytest.mark.parametrize("query", ["group=x", "since=x", "since=%00", "release=%00", "host=%00",
                                   "age=x", "group=99999999999999999999", "since=2026-13-01"])  # fmt: skip
def test_a_hostile_filter_breaks_no_list(lead: Client, query: str) -> None:
    assert lead.get(f"/admin/queueadmin/deadletter/?{query}").status_code == 200


def test_the_page_says_what_was_done_before_and_how_it_went(lead: Client) -> None:
    group = make_group(fingerprint="f")
    letters = [make_dead_letter(fingerprint="f") for _number in range(3)]
    operation = operations.create(
        [letter.pk for letter in letters], by=None, name="Try", reason="It is over", group=group
    )
    for letter, state in zip(letters, ("recovered", "recovered", "failed"), strict=True):
        OperationItem.objects.filter(dead_letter=letter).update(state=state)
    failuregroups.resolve(group.pk, by=None, what_was_done="Restarted the gateway")

    html = lead.get(page(group)).content.decode()

    assert operation.name in html
    assert "2 of 3 recovered, 1 failed again" in html
    assert "It is over" in html
    assert "Restarted the gateway" in html
    assert "has held so far" in html


def test_the_sparkline_has_a_bar_per_hour_with_failures(lead: Client) -> None:
    group = make_group(fingerprint="f")
    for hours in (0.5, 0.6, 5.5, 30):
        make_dead_letter(fingerprint="f", died_at=now() - timedelta(hours=hours))

    html = lead.get(page(group)).content.decode()

    assert failuregroups.line(group)[-6:] == [1, 0, 0, 0, 0, 2]
    assert sum(failuregroups.line(group)) == 3
    bars = html.split('class="qa-failed" d="', 1)[1].split('"', 1)[0]
    assert bars.count("z") == 2
    assert "at most 2 in an hour" in html
