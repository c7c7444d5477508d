"""When a dead letter is somebody's turn: due dates, snoozes, tickets, rules and mentions."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction

from queueadmin import assignment, deadletters, failuregroups, ledger, resolver, triage
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AssignmentRule, AuditEntry, DeadLetter, FailureGroup, Worker
from queueadmin.states import DeadLetterStatus, DeathCause, GroupStatus, JobState, Outcome
from queueadmin.testing import run_jobs
from tests.queueadmin.rows import TRIAGE, make_dead_letter, make_group, make_user
from tests.queueadmin.test_failuregroups import LEAD, die

pytestmark = pytest.mark.django_db


def make_rule(owner: Any, **fields: Any) -> AssignmentRule:
    return AssignmentRule.objects.create(assignee=owner, **fields)


def is_asleep(letter: DeadLetter) -> bool:
    letter.refresh_from_db()
    return letter.is_snoozed


def make_worker(release: str, **fields: Any) -> None:
    at = now()
    values = {"host": "w1", "pid": 1, "started_at": at, "seen_at": at, "threads": 8}
    Worker.objects.create(id=f"w1:{release}", release=release, **(values | fields))


def die_again(job: str) -> None:
    """Let a requeued job fail for good once more, as a worker records it."""
    at = now()
    ledger.commit(
        [
            ledger.Ending(
                job=job, dispatch=2, state=JobState.DEAD, outcome=Outcome.DEAD, attempt=1,
                started_at=at, finished_at=at, queue="mail", actor="send",
                error_class="Timeout", cause=DeathCause.REJECTED,
            )
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    "act",
    [
        lambda pk, by: triage.set_due([pk], at=now(), by=by),
        lambda pk, by: triage.snooze([pk], by=by),
        lambda pk, by: triage.wake([pk], by=by),
        lambda pk, by: triage.link_ticket([pk], url="https://example.com/1", by=by),
    ],
)
def test_triage_refuses_who_may_not(act: Any) -> None:
    letter = make_dead_letter()
    nearly = make_user("nearly", *(name for name in TRIAGE if name != "assign_deadletter"))

    with pytest.raises(NotPermitted):
        act(letter.pk, nearly)

    assert not AuditEntry.objects.exists()


def test_a_due_date_is_kept_once_and_audited() -> None:
    letter, anna, at = make_dead_letter(), make_user("anna", *TRIAGE), now() + timedelta(days=1)

    first = triage.set_due([letter.pk], at=at, by=anna)
    again = triage.set_due([letter.pk], at=at, by=anna)

    letter.refresh_from_db()
    assert (letter.due_at, first.done) == (at, 1)
    assert again.skipped == {"nothing to change": 1}
    assert AuditEntry.objects.get().verb == "set_due"


def test_a_ticket_is_an_address_and_nothing_else() -> None:
    letter = make_dead_letter(status=DeadLetterStatus.RECOVERED)

    triage.link_ticket([letter.pk], url="https://example.com/T-1", by=None)

    letter.refresh_from_db()
    assert letter.ticket_url == "https://example.com/T-1"
    with pytest.raises(ValueError, match="http"):
        triage.link_ticket([letter.pk], url="javascript:alert(1)", by=None)


def test_a_snooze_ends_at_its_date() -> None:
    letter = make_dead_letter()
    triage.snooze([letter.pk], until=now() + timedelta(hours=1), by=None)
    assert triage.wake_due() == 0
    assert is_asleep(letter)

    DeadLetter.objects.update(snoozed_until=now() - timedelta(seconds=1))

    assert triage.wake_due() == 1
    assert not is_asleep(letter)
    assert triage.wake_due() == 0
    assert AuditEntry.objects.filter(verb="wake", user_name="system").count() == 1


def test_a_snooze_ends_with_so_many_more_failures_of_its_group() -> None:
    die("a")
    letter = DeadLetter.objects.get()
    triage.snooze([letter.pk], more_failures=2, by=None)

    die("b")
    assert triage.wake_due() == 0
    die("c")

    assert triage.wake_due() == 1
    assert not is_asleep(letter)


def test_a_snooze_ends_when_workers_run_another_release() -> None:
    letter = make_dead_letter(release="5.2")
    triage.snooze([letter.pk], until_release=True, by=None)
    make_worker("5.2")
    make_worker("5.3", seen_at=now() - timedelta(days=1))  # it is gone
    assert triage.wake_due() == 0

    make_worker("5.4")

    assert triage.wake_due() == 1
    assert not is_asleep(letter)


def test_a_snooze_until_another_release_needs_a_release() -> None:
    letter = make_dead_letter()

    result = triage.snooze([letter.pk], until_release=True, by=None)

    assert result.skipped == {"no release known": 1}
    assert not is_asleep(letter)


def test_a_snooze_in_the_past_is_refused() -> None:
    with pytest.raises(ValueError, match="future"):
        triage.snooze([1], until=now() - timedelta(seconds=1), by=None)
    with pytest.raises(ValueError, match="1 or more"):
        triage.snooze([1], more_failures=0, by=None)


def test_waking_wakes_once() -> None:
    letter = make_dead_letter()
    triage.snooze([letter.pk], by=None)

    assert triage.wake([letter.pk], by=None).done == 1
    assert triage.wake([letter.pk], by=None).skipped == {"nothing to change": 1}
    assert not is_asleep(letter)


@pytest.mark.parametrize(
    "act",
    [
        lambda pk: deadletters.requeue([pk], by=None),
        lambda pk: deadletters.close([pk], by=None, reason="x"),
    ],
)
def test_what_is_decided_sleeps_no_more(act: Any) -> None:
    letter = make_dead_letter()
    triage.snooze([letter.pk], until=now() + timedelta(hours=1), by=None)

    act(letter.pk)

    letter.refresh_from_db()
    assert (letter.snoozed_at, letter.snoozed_until) == (None, None)


def test_the_first_matching_rule_gives_new_failures_to_its_owner() -> None:
    anna, ben = make_user("anna", *TRIAGE, *LEAD), make_user("ben", *TRIAGE, *LEAD)
    make_rule(anna, position=3)  # everything
    make_rule(ben, position=2, queue="mail", error_class="Time*", due_hours=24)
    make_rule(anna, position=1, actor="sender")
    die("a")
    die("b", error="Refused")

    assert assignment.apply() == 4

    letter = DeadLetter.objects.get(job="a")
    assert letter.assignee == ben
    assert letter.due_at == letter.died_at + timedelta(hours=24)
    assert DeadLetter.objects.get(job="b").assignee == anna
    assert FailureGroup.objects.get(error_class="Timeout").owner == ben
    entry = AuditEntry.objects.get(target_type="dead letter", target_id=letter.pk)
    assert (entry.user_name, entry.verb) == ("system", "assign")
    assert entry.reason == "by rule: mail · Time*"
    assert entry.detail["to"] == "ben"


def test_rules_apply_once_so_that_a_person_has_the_last_word() -> None:
    make_rule(make_user("anna", *TRIAGE, *LEAD), queue="mail")
    die("a")
    assignment.apply()

    deadletters.assign(DeadLetter.objects.values_list("pk", flat=True), to=None, by=None)

    assert assignment.apply() == 0
    assert DeadLetter.objects.get().assignee is None


def test_rules_leave_alone_what_was_there_before_them() -> None:
    die("a")
    assert assignment.apply() == 0

    make_rule(make_user("anna", *TRIAGE, *LEAD), queue="mail")

    assert assignment.apply() == 0


def test_rules_whose_owner_left_or_may_not_look_give_nothing() -> None:
    make_rule(make_user("gone", *TRIAGE, *LEAD, is_active=False), position=1)
    make_rule(make_user("blind"), position=2)
    make_rule(make_user("asleep", *TRIAGE, *LEAD), position=3, is_active=False)
    die("a")

    assert assignment.apply() == 0


def test_a_group_that_comes_back_is_given_to_somebody_again() -> None:
    die("a")
    assignment.apply()
    group = FailureGroup.objects.get()
    failuregroups.resolve(group.pk, by=None, what_was_done="x")
    anna = make_user("anna", *TRIAGE, *LEAD)
    make_rule(anna)

    die("b")
    assignment.apply()

    group.refresh_from_db()
    assert (group.status, group.owner) == (GroupStatus.REGRESSED, anna)


def test_what_fails_again_stays_with_its_owner_and_wakes() -> None:
    anna, ben = make_user("anna", *TRIAGE), make_user("ben", *TRIAGE)
    make_rule(ben)
    die("a")
    letter = DeadLetter.objects.get()
    deadletters.assign([letter.pk], to=anna, by=None)
    assert assignment.apply() == 0
    deadletters.requeue([letter.pk], by=None)
    # Whatever was said about it while it ran again.
    DeadLetter.objects.update(snoozed_at=now())

    die_again("a")
    assignment.apply()

    letter.refresh_from_db()
    assert (letter.deaths, letter.assignee, letter.is_snoozed) == (2, anna, False)


def test_who_is_mentioned_finds_the_note_and_gets_a_mail_after_the_commit() -> None:
    anna = make_user("anna", *TRIAGE, email="anna@example.com")
    ben = make_user("ben.smith", *TRIAGE, email="ben@example.com")
    letter = make_dead_letter()

    note = deadletters.annotate(letter.pk, text="Is it yours, @ben.smith? cc @anna.", by=anna)
    run_jobs()

    assert set(note.mentioned.all()) == {anna, ben}
    (sent,) = mail.outbox  # who names herself knows it
    assert sent.to == ["ben@example.com"]
    assert "anna mentioned you" in sent.subject
    assert "Is it yours, @ben.smith?" in sent.body
    assert f"/admin/queueadmin/deadletter/{letter.pk}/change/" in sent.body
    assert AuditEntry.objects.get(verb="annotate").detail["mentioned"] == ["anna", "ben.smith"]


def test_a_note_on_a_group_mentions_too() -> None:
    make_user("anna", *LEAD, email="anna@example.com")
    group = make_group(error_class="Bad\nSubject: x")

    failuregroups.annotate(group.pk, text="(@anna) look", by=None)
    run_jobs()

    assert mail.outbox[0].to == ["anna@example.com"]


def test_nobody_is_mentioned_by_an_address_or_without_the_right_to_look() -> None:
    make_user("blind", email="blind@example.com")
    make_user("example.com", *TRIAGE, email="x@example.com")
    make_user("gone", *TRIAGE, email="gone@example.com", is_active=False)
    letter = make_dead_letter()

    note = deadletters.annotate(letter.pk, text="@blind me@example.com @gone @nobody @", by=None)
    run_jobs()

    assert not note.mentioned.exists()
    assert mail.outbox == []


def test_who_is_mentioned_is_told_by_a_site_whose_pages_do_not_load(settings: Any) -> None:
    make_user("anna", *TRIAGE, email="anna@example.com")
    deadletters.annotate(make_dead_letter().pk, text="@anna", by=None)

    settings.ROOT_URLCONF = "tests.no_such_urls"
    run_jobs()

    assert mail.outbox[0].body.startswith("@anna")
    assert "/change/" not in mail.outbox[0].body


def test_addresses_are_made_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them imports the URLconf, and half an import is seen by nobody else."""
    inside: list[int] = []
    most = 0

    def slow(*args: Any, **kwargs: Any) -> str:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.pop()
        return "/somewhere/"

    monkeypatch.setattr(resolver, "reverse", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(resolver.console_address, ["alert_digest"] * 4))

    assert all(address.endswith("/somewhere/") for address in found)
    assert (len(found), most) == (4, 1)


def test_a_note_that_is_rolled_back_tells_nobody() -> None:
    make_user("anna", *TRIAGE, email="anna@example.com")
    letter = make_dead_letter()

    with pytest.raises(RuntimeError), transaction.atomic():
        deadletters.annotate(letter.pk, text="@anna", by=None)
        raise RuntimeError
    run_jobs()

    assert mail.outbox == []
