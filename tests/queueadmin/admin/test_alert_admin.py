"""The page of alerts, and the strip on the overview."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from queueadmin.models import Alert, AuditEntry
from queueadmin.states import AlertKind
from tests.queueadmin.admin.hostile import HOSTILE, assert_text_only
from tests.queueadmin.rows import make_group

pytestmark = pytest.mark.usefixtures("broker")
LIST = reverse("admin:queueadmin_alert_changelist")
OVERVIEW = reverse("admin:queueadmin_overview_changelist")
QUEUES = reverse("admin:queueadmin_queue_changelist")


def make_alert(**fields: Any) -> Alert:
    values = {
        "kind": AlertKind.STUCK,
        "subject": "mail",
        "queue": "mail",
        "text": "The oldest of 7 waiting jobs of mail was due 16 minutes ago.",
        "opened_at": timezone.now() - timedelta(minutes=5),
    }
    return Alert.objects.create(**(values | fields))


def address(alert: Alert) -> str:
    return reverse("admin:queueadmin_alert_do", args=[alert.pk, "acknowledge"])


def test_open_alerts_come_first_and_the_rest_is_history(viewer: Client) -> None:
    shown = make_alert()
    over = make_alert(subject="b", closed_at=timezone.now())

    assert list(viewer.get(LIST).context["cl"].result_list) == [shown]
    assert list(viewer.get(LIST, {"state": "over"}).context["cl"].result_list) == [over]
    assert list(viewer.get(LIST, {"state": "all"}).context["cl"].result_list) == [shown, over]


def test_an_alert_is_acknowledged_once_and_everybody_sees_by_whom(lead: Client) -> None:
    alert = make_alert()
    assert "that you are at it" in lead.get(address(alert)).content.decode()

    lead.post(address(alert), {"confirmed": "yes", "reason": "on it"})
    again = lead.post(address(alert), {"confirmed": "yes", "reason": "me too"}, follow=True)

    assert "Nothing was changed" in again.content.decode()
    html = lead.get(LIST).content.decode()
    assert "<bdi>lead</bdi>" in html
    assert AuditEntry.objects.get(verb="acknowledge").reason == "on it"


def test_a_viewer_looks_and_may_not_acknowledge(viewer: Client, stranger: Client) -> None:
    alert = make_alert()

    assert viewer.get(LIST).status_code == 200
    assert "Acknowledge" not in viewer.get(LIST).content.decode()
    assert viewer.get(address(alert)).status_code == 403
    assert viewer.post(address(alert), {"confirmed": "yes"}).status_code == 403
    assert stranger.get(LIST).status_code == 403
    alert.refresh_from_db()
    assert alert.acknowledged_at is None


@pytest.mark.parametrize("kind", AlertKind)
def test_each_alert_leads_to_where_it_can_be_mended(lead: Client, kind: AlertKind) -> None:
    subject = make_group().label if kind == AlertKind.REGRESSED else "mail"
    make_alert(kind=kind, subject=subject)

    html = lead.get(LIST).content.decode()

    target = html.split('field-what"><a href="')[1].split('"')[0].replace("&amp;", "&")
    assert lead.get(target).status_code == 200


def test_the_overview_names_what_is_the_matter(viewer: Client, anna: Client) -> None:
    make_alert()
    make_alert(subject="over", text="was bad", closed_at=timezone.now())

    html = viewer.get(OVERVIEW).content.decode()

    assert "The oldest of 7 waiting jobs" in html
    assert "was bad" not in html
    assert '<p class="qa-sentence">1 alert is open.</p>' in html
    assert "alert is open" not in anna.get(OVERVIEW).content.decode()


@pytest.mark.parametrize("page", [OVERVIEW, QUEUES])
def test_an_early_warning_is_shown_beside_its_queue(viewer: Client, page: str) -> None:
    text = "mail: failures 12 % — usual for this hour 0.5–2 %"
    make_alert(kind=AlertKind.FAILURES, text=text, queue="order-routing")

    (row,) = (row for row in viewer.get(page).context["rows"] if row.name == "order-routing")

    assert text in [badge.why for badge in row.badges]
    assert row.trouble == "not as usual for this hour"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(viewer: Client, text: str) -> None:
    clean = text.replace("\0", "")
    make_alert(text=clean, subject=clean[:300], queue=clean[:100])

    assert_text_only(viewer.get(LIST))
    assert_text_only(viewer.get(OVERVIEW))


def test_the_number_of_queries_does_not_grow_with_the_list(
    lead: Client,
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            lead.get(LIST)
        return len(found)

    make_alert(subject="0")
    few = queries()
    for number in range(1, 20):
        make_alert(subject=str(number))

    assert queries() == few


def test_tabs_alone_make_no_bar_of_filters(viewer: Client) -> None:
    make_alert()

    assert 'id="changelist-filter"' not in viewer.get(LIST).content.decode()


def test_an_empty_list_says_what_would_be_there(viewer: Client) -> None:
    assert "Nothing is the matter" in viewer.get(LIST).content.decode()


def test_the_console_has_the_page_on_any_site() -> None:
    assert admin.site.is_registered(Alert)
