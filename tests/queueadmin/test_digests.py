"""Everybody is told once a day what they own, and nobody else is told anything."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.test import Client, override_settings
from django.urls import reverse

from queueadmin import digests
from queueadmin.models import AuditEntry, Digest
from queueadmin.states import DeadLetterStatus, GroupStatus
from tests.queueadmin.rows import make_dead_letter, make_group, make_user

pytestmark = pytest.mark.django_db
AT = datetime(2026, 3, 4, 7, 0, tzinfo=UTC)
DIGEST = reverse("admin:queueadmin_alert_digest")


@pytest.fixture(autouse=True)
def in_the_morning() -> Iterator[None]:
    with (
        override_settings(SITE_URL="https://orders.example"),
        time_machine.travel(AT, tick=False),
    ):
        yield


@pytest.fixture
def anna(db: None) -> User:
    return make_user("anna", "view_deadletter", email="anna@example.com")


def own(user: User, **fields: Any) -> Any:
    return make_dead_letter(assignee=user, **{"died_at": AT - timedelta(days=3), **fields})


def test_it_names_what_is_new_overdue_running_and_coming_back(anna: User) -> None:
    own(anna)
    own(anna, died_at=AT - timedelta(hours=2))
    own(anna, due_at=AT - timedelta(hours=1))
    own(anna, status=DeadLetterStatus.REQUEUED)
    waking = own(anna, snoozed_at=AT, snoozed_until=AT + timedelta(hours=5))
    own(anna, snoozed_at=AT, snoozed_until=AT + timedelta(days=5))
    own(anna, status=DeadLetterStatus.PERMANENTLY_FAILED)
    group = make_group(owner=anna, status=GroupStatus.REGRESSED)
    make_group(owner=anna, status=GroupStatus.RESOLVED)
    snoozed = make_group(
        owner=anna, status=GroupStatus.SNOOZED, snoozed_until=AT + timedelta(hours=20)
    )

    assert digests.send_all() == 1

    (sent,) = mail.outbox
    assert sent.to == ["anna@example.com"]
    assert sent.subject == "[queues] Yours today: 3 dead letters, 1 groups"
    assert "3 dead letters wait for you: 1 new since yesterday, 1 overdue." in sent.body
    assert "1 of yours run again." in sent.body
    assert str(group) in sent.body
    assert sent.body.split("No longer snoozed")[1].split("\n\n")[0].splitlines()[1:] == [
        f"  - {snoozed.label}",
        f"  - {waking}",
    ]
    assert f"https://orders.example{DIGEST}" in sent.body


def test_it_is_sent_once_a_day_whoever_runs_it_how_often(anna: User) -> None:
    own(anna)

    assert [digests.send_all(), digests.send_all()] == [1, 0]
    with time_machine.travel(AT + timedelta(hours=16), tick=False):
        assert digests.send_all() == 0
    with time_machine.travel(AT + timedelta(days=1), tick=False):
        assert digests.send_all() == 1
    assert len(mail.outbox) == 2


def test_of_two_that_have_both_looked_one_sends(anna: User) -> None:
    today = AT.date()
    Digest.objects.create(user=anna)

    assert digests._claim(anna, today) == (None,)
    assert digests._claim(anna, today) is None
    # One that is late with an earlier day does not turn the clock back.
    assert digests._claim(anna, today - timedelta(days=1)) is None


def test_a_clock_that_goes_over_midnight_there_begins_a_day(anna: User) -> None:
    own(anna)
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        with time_machine.travel(datetime(2026, 3, 4, 14, 30, tzinfo=UTC), tick=False):
            assert digests.send_all() == 1
        with time_machine.travel(datetime(2026, 3, 4, 15, 30, tzinfo=UTC), tick=False):
            assert digests.send_all() == 1


@pytest.mark.parametrize(
    "fields",
    [{"email": ""}, {"is_active": False}, {"is_staff": False}],
    ids=["no address", "gone", "no staff"],
)
def test_nobody_gets_it_who_may_not_or_cannot(anna: User, fields: dict[str, Any]) -> None:
    own(anna)
    User.objects.update(**fields)

    assert digests.send_all() == 0


def test_nobody_gets_it_without_the_permission_or_without_owning_something(anna: User) -> None:
    stranger = make_user("eve", email="eve@example.com")
    own(stranger)
    own(anna, status=DeadLetterStatus.RECOVERED)
    make_dead_letter()

    assert digests.send_all() == 0
    assert mail.outbox == []


class _RefusesAnna(EmailBackend):
    def send_messages(self, messages: Any) -> int:
        if messages[0].to == ["anna@example.com"]:
            raise ConnectionRefusedError
        return super().send_messages(messages)


def test_one_that_fails_is_sent_by_the_next_attempt_and_holds_up_nobody(anna: User) -> None:
    bert = make_user("bert", "view_deadletter", email="bert@example.com")
    own(anna)
    own(bert)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "get_connection", _RefusesAnna)
        with pytest.raises(digests.SomeUnsent):
            digests.send_all()
    assert [sent.to for sent in mail.outbox] == [["bert@example.com"]]

    assert digests.send_all() == 1
    assert [sent.to for sent in mail.outbox] == [["bert@example.com"], ["anna@example.com"]]


def test_whoever_stopped_it_gets_none_until_they_want_it_again(anna: User) -> None:
    own(anna)
    client = Client()
    client.force_login(anna)

    assert "Stop the daily digest" in client.get(DIGEST).content.decode()
    client.post(DIGEST, {"wanted": "no"})
    client.post(DIGEST, {"wanted": "no"})
    assert digests.send_all() == 0
    assert "You have stopped it" in client.get(DIGEST).content.decode()

    client.post(DIGEST, {"wanted": "yes"})
    assert digests.send_all() == 1
    link = next(line for line in mail.outbox[0].body.splitlines() if "deadletter" in line)
    mine = client.get(link.removeprefix("https://orders.example")).context["cl"]
    assert [tab.count for tab in mine.tabs if tab.is_selected] == [1]
    assert list(AuditEntry.objects.order_by("id").values_list("verb", flat=True)) == [
        "stop digest",
        "want digest",
    ]


def test_the_page_is_for_staff_who_are_logged_in(client: Client) -> None:
    assert client.get(DIGEST).status_code == 302


def test_the_number_of_queries_does_not_grow_with_what_somebody_owns(
    anna: User, django_assert_num_queries: Any
) -> None:
    for _number in range(12):
        own(anna)
        make_group(owner=anna)
    Digest.objects.create(user=anna)

    with django_assert_num_queries(9):
        digests.send_all()
