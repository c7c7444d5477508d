"""Troubles that many dead letters share: how they come, go, and come back."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries

from queueadmin import failuregroups, ledger
from queueadmin.clock import now
from queueadmin.exceptions import NotPermitted
from queueadmin.models import AuditEntry, DeadLetter, FailureGroup, Worker
from queueadmin.states import DeathCause, GroupStatus, JobState, Outcome
from tests.queueadmin.rows import make_dead_letter, make_group, make_user

pytestmark = pytest.mark.django_db
LEAD = (
    "view_failuregroup",
    "triage_failuregroup",
    "annotate_failuregroup",
    "resolve_failuregroup",
)


def die(*jobs: str, error: str = "Timeout", release: str = "", **fields: Any) -> None:
    """Let jobs fail for good, as a worker records it."""
    at = now()
    ledger.insert(
        [
            ledger.NewJob(id=job, queue="mail", actor="send", message=b"{}", enqueued_at=at)
            for job in jobs
        ]
    )
    ledger.commit(
        [
            ledger.Ending(
                job=job,
                dispatch=1,
                state=JobState.DEAD,
                outcome=Outcome.DEAD,
                attempt=1,
                started_at=at,
                finished_at=at,
                queue="mail",
                actor="send",
                error_class=error,
                error_message="after 30 s",
                cause=DeathCause.REJECTED,
                release=release,
                **{"worker": "w1:1", **fields},
            )
            for job in jobs
        ]
    )


def test_equal_failures_are_one_group_with_the_release_it_was_first_seen_in() -> None:
    die("a", "b", release="5.1")
    die("c", release="5.2")
    die("d", error="Refused", release="5.2")

    timeout, refused = FailureGroup.objects.order_by("pk")

    assert (timeout.error_class, timeout.deaths, timeout.status) == ("Timeout", 3, "open")
    assert (timeout.first_release, timeout.last_release) == ("5.1", "5.2")
    assert (refused.error_class, refused.deaths) == ("Refused", 1)
    assert DeadLetter.objects.filter(fingerprint=timeout.fingerprint).count() == 3
    assert set(DeadLetter.objects.values_list("release", "worker")) == {
        ("5.1", "w1:1"),
        ("5.2", "w1:1"),
    }


def test_a_replayed_batch_counts_once() -> None:
    at = now()
    ledger.insert([ledger.NewJob(id="a", queue="q", actor="x", message=b"", enqueued_at=at)])
    ending = ledger.Ending(
        job="a",
        dispatch=1,
        state=JobState.DEAD,
        outcome=Outcome.DEAD,
        attempt=1,
        started_at=at,
        finished_at=at,
    )

    ledger.commit([ending])
    ledger.commit([ending])

    assert FailureGroup.objects.get().deaths == 1


def test_a_resolved_group_that_fails_again_has_regressed() -> None:
    die("a")
    group = FailureGroup.objects.get()

    assert failuregroups.resolve(group.pk, by=None, what_was_done="raised the limit")
    die("b")

    group.refresh_from_db()
    assert (group.status, group.regressions) == (GroupStatus.REGRESSED, 1)
    assert group.regressed_at is not None
    (done,) = failuregroups.past(group)
    assert (done.text, done.has_held) == ("raised the limit", False)


def test_a_group_that_failed_again_meanwhile_is_not_resolved_unseen() -> None:
    die("a")
    group = FailureGroup.objects.get()
    die("b")

    assert not failuregroups.resolve(group.pk, by=None, what_was_done="x", seen_deaths=group.deaths)
    assert failuregroups.resolve(group.pk, by=None, what_was_done="x", seen_deaths=2)
    assert not failuregroups.resolve(group.pk, by=None, what_was_done="x")
    assert AuditEntry.objects.filter(verb="resolve").count() == 1


def _meanwhile(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Begin `second` in another connection while the transaction of `first` is open."""
    errors: list[Exception] = []
    started = threading.Event()

    def run_second() -> None:
        started.set()
        try:
            second()
        except Exception as error:  # handed to the test's own thread
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run_second)
    with transaction.atomic():
        first()
        thread.start()
        started.wait()
    thread.join()
    assert not errors, errors


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("death_is_first", [True, False])
def test_of_a_death_and_a_resolve_at_once_none_is_lost(death_is_first: bool) -> None:
    die("a")
    group = FailureGroup.objects.get()
    acts: list[Callable[[], object]] = [
        lambda: die("b"),
        lambda: failuregroups.resolve(group.pk, by=None, what_was_done="x", seen_deaths=1),
    ]

    _meanwhile(*(acts if death_is_first else reversed(acts)))

    group.refresh_from_db()
    assert group.deaths == 2
    assert group.status == (GroupStatus.OPEN if death_is_first else GroupStatus.REGRESSED)


@pytest.mark.django_db(transaction=True)
def test_two_recorders_with_the_same_troubles_do_not_lock_each_other_out() -> None:
    def both(prefix: str, errors: list[str]) -> Callable[[], object]:
        return lambda: [die(f"{prefix}{error}", error=error) for error in errors]

    # One batch each: groups are locked in one order, whatever order the failures have.
    _meanwhile(both("a", ["Refused"]), both("b", ["Timeout", "Refused"]))

    assert sorted(FailureGroup.objects.values_list("error_class", "deaths")) == [
        ("Refused", 2),
        ("Timeout", 1),
    ]


@pytest.mark.parametrize(
    ("snooze", "is_awake"),
    [
        ({"more_failures": 1}, True),
        ({"more_failures": 2}, False),
        ({"until_release": True}, True),
        ({"until": timedelta(hours=1)}, False),
        ({}, False),
    ],
)
def test_a_snooze_ends_by_count_or_release(snooze: dict[str, Any], is_awake: bool) -> None:
    die("a", release="5.1")
    group = FailureGroup.objects.get()
    if "until" in snooze:
        snooze = {"until": now() + snooze["until"]}

    assert failuregroups.snooze(group.pk, by=None, **snooze)
    die("b", release="5.2")

    group.refresh_from_db()
    assert group.status == (GroupStatus.OPEN if is_awake else GroupStatus.SNOOZED)


def test_a_snooze_ends_at_its_date() -> None:
    group = make_group(status=GroupStatus.SNOOZED, snoozed_until=now() - timedelta(seconds=1))
    later = make_group(status=GroupStatus.SNOOZED, snoozed_until=now() + timedelta(hours=1))

    assert failuregroups.wake() == 1
    assert failuregroups.wake() == 0

    group.refresh_from_db()
    later.refresh_from_db()
    assert (group.status, later.status) == (GroupStatus.OPEN, GroupStatus.SNOOZED)


def test_what_a_snooze_ends_with_lies_ahead() -> None:
    group = make_group()

    with pytest.raises(ValueError, match="future"):
        failuregroups.snooze(group.pk, by=None, until=now())
    with pytest.raises(ValueError, match="1 or more"):
        failuregroups.snooze(group.pk, by=None, more_failures=0)


VERBS: list[tuple[str, Callable[..., Any]]] = [
    ("resolve_failuregroup", lambda pk, by: failuregroups.resolve(pk, by=by, what_was_done="x")),
    ("resolve_failuregroup", lambda pk, by: failuregroups.reopen(pk, by=by)),
    ("triage_failuregroup", lambda pk, by: failuregroups.snooze(pk, by=by)),
    ("triage_failuregroup", lambda pk, by: failuregroups.assign(pk, to=None, by=by)),
    ("triage_failuregroup", lambda pk, by: failuregroups.link_ticket(pk, url="", by=by)),
    ("annotate_failuregroup", lambda pk, by: failuregroups.annotate(pk, text="x", by=by)),
]


@pytest.mark.parametrize(("permission", "act"), VERBS)
def test_a_verb_refuses_who_has_every_permission_but_its_own(
    permission: str, act: Callable[..., Any]
) -> None:
    group = make_group()
    nearly = make_user("nearly", *(name for name in LEAD if name != permission))

    with pytest.raises(NotPermitted):
        act(group.pk, nearly)

    assert not AuditEntry.objects.exists()


def test_verbs_pressed_twice_are_done_and_audited_once() -> None:
    group, anna = make_group(), make_user("anna", *LEAD)
    acts: list[Callable[[], bool]] = [
        lambda: failuregroups.assign(group.pk, to=anna, by=anna),
        lambda: failuregroups.link_ticket(group.pk, url="https://tickets.test/1", by=anna),
        lambda: failuregroups.snooze(group.pk, by=anna),
        lambda: failuregroups.reopen(group.pk, by=anna),
        lambda: failuregroups.resolve(group.pk, by=anna, what_was_done="restarted"),
    ]

    for act in acts:
        assert act()
        assert not act()

    verbs = list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["assign", "link ticket", "snooze", "reopen", "resolve"]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ftp://x.test/", "x", "//x.test"])
def test_a_ticket_is_a_web_address(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        failuregroups.link_ticket(make_group().pk, url=url, by=None)


def test_the_matrix_counts_by_window_in_one_query(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    groups = [make_group(), make_group(), make_group()]
    for hours in (0, 2, 10, 50, 100, 200):
        make_dead_letter(fingerprint=groups[0].fingerprint, died_at=now() - timedelta(hours=hours))
    make_dead_letter(fingerprint=groups[1].fingerprint)

    with django_assert_num_queries(1):
        matrix = failuregroups.matrix(groups)

    counts = [[cell.count for cell in matrix[group.pk]] for group in groups]
    assert counts == [[1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_the_matrix_stops_counting_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failuregroups, "COUNT_LIMIT", 3)
    group = make_group()
    for _number in range(5):
        make_dead_letter(fingerprint=group.fingerprint)

    cell = failuregroups.matrix([group])[group.pk][0]

    assert (cell.count, cell.is_more) == (3, True)


def test_an_outbreak_says_what_its_failures_have_in_common() -> None:
    at = now()
    group = make_group()
    for host in ("w1", "w3"):
        Worker.objects.create(
            id=host,
            host=host,
            pid=1,
            started_at=at - timedelta(minutes=7),
            seen_at=at,
            threads=1,
            release="5.2",
        )
    for minutes in (0, 1, 3):
        make_dead_letter(
            fingerprint=group.fingerprint,
            died_at=at - timedelta(minutes=minutes),
            release="5.2",
            worker="w3:7",
        )
    make_dead_letter(fingerprint=group.fingerprint, died_at=at - timedelta(hours=5))
    make_dead_letter(fingerprint="other", died_at=at - timedelta(minutes=2))

    found = failuregroups.outbreak(group)

    assert found is not None
    assert (found.count, found.share, found.length) == (3, 75, timedelta(minutes=3))
    assert (found.queue, found.release, found.host) == ("whatsapp-messages", "5.2", "w3")
    assert found.after_release == timedelta(minutes=4)


def test_a_group_without_dead_letters_has_no_outbreak() -> None:
    assert failuregroups.outbreak(make_group()) is None
