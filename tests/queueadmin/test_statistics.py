"""Numbers that the ledger counts with each commit, and what is read from them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from queueadmin import ledger, statistics
from queueadmin.clock import now
from queueadmin.models import HourStatistic, MinuteStatistic
from queueadmin.models.statistic import BOUNDS_MS
from queueadmin.states import JobState, Outcome
from tests.queueadmin.rows import make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("broker")]

STATE = {
    Outcome.COMPLETED: JobState.COMPLETED,
    Outcome.RETRYING: JobState.RETRYING,
    Outcome.DEAD: JobState.DEAD,
    Outcome.RETURNED: JobState.WAITING,
}


def ending(job: str, outcome: Outcome = Outcome.COMPLETED, **fields: Any) -> ledger.Ending:
    at = now()
    values: dict[str, Any] = {
        "attempt": 0 if outcome == Outcome.RETURNED else 1,
        "started_at": at,
        "finished_at": at,
        "due_at": at if outcome in (Outcome.RETRYING, Outcome.RETURNED) else None,
        "queue": "mail",
        "actor": "send",
    }
    return ledger.Ending(
        job=job, dispatch=1, state=STATE[outcome], outcome=outcome, **(values | fields)
    )


def add(*jobs: str, waited: float = 0.0) -> None:
    at = now() - timedelta(seconds=waited)
    ledger.insert(
        [
            ledger.NewJob(id=job, queue="mail", actor="send", message=b"{}", enqueued_at=at)
            for job in jobs
        ]
    )


def flow() -> statistics.Flow:
    return statistics.flows(now() - timedelta(minutes=5))["mail"]


def test_every_outcome_is_counted_with_its_times() -> None:
    add("a", "b", "c", "d", waited=20)

    ledger.commit(
        [
            ending("a", duration_ms=40),
            ending("b", Outcome.RETRYING, duration_ms=2_000),
            ending("c", Outcome.DEAD, duration_ms=0.5),
            ending("d", Outcome.RETURNED, duration_ms=9),
        ]
    )

    found = flow()
    assert (found.completed, found.retried, found.dead, found.attempts) == (1, 1, 1, 3)
    assert sum(found.run) == 3  # what was returned has not run
    assert sum(found.wait) == 2  # a retry's new due time hides the old one
    assert found.wait_at(0.5) is not None
    assert timedelta(seconds=10) < found.wait_at(0.5) < timedelta(seconds=30)  # type: ignore[operator]
    assert found.failed_percent == pytest.approx(200 / 3)


def test_what_is_stale_or_replayed_is_not_counted() -> None:
    add("a")
    batch = [ending("a"), ending("unknown")]

    ledger.commit(batch)
    ledger.commit(batch)

    assert flow().completed == 1


def test_batches_of_a_minute_are_added_up_in_one_row_per_worker_shard() -> None:
    for number in range(3):
        add(str(number))
        ledger.commit([ending(str(number), worker="w1:1", finished_at=now().replace(second=1))])

    assert MinuteStatistic.objects.aggregate(total=Sum("completed")) == {"total": 3}
    assert MinuteStatistic.objects.count() <= 2  # 2 where the minute has just ended


def test_a_commit_that_fails_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    add("a")

    def fail(*args: object) -> None:
        raise RuntimeError("gone")

    monkeypatch.setattr("queueadmin.ledger.grouping.group", fail)
    with pytest.raises(RuntimeError):
        ledger.commit([ending("a"), ending("unknown")])

    assert not MinuteStatistic.objects.exists()


@given(
    counts=st.lists(st.integers(0, 50), min_size=13, max_size=13),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_percentile_lies_in_its_bucket_and_grows_with_its_share(
    counts: list[int], shares: tuple[float, float]
) -> None:
    low, high = sorted(shares)
    smaller, larger = statistics.percentile(counts, low), statistics.percentile(counts, high)

    if not sum(counts):
        assert smaller is None
    else:
        assert timedelta(0) <= smaller <= larger <= timedelta(milliseconds=BOUNDS_MS[-1])  # type: ignore[operator]


def test_counts_stop_at_a_bound_and_tell_states_apart(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(statistics, "COUNT_LIMIT", 3)
    for _number in range(5):
        make_job(queue="a")
    make_job(queue="a", state=JobState.DEAD)
    make_job(queue="b", state=JobState.ACTIVE)

    with django_assert_num_queries(1):
        found = statistics.counts(["a", "b", "c"])

    assert found["a"][JobState.WAITING] == 4
    assert found["a"][JobState.DEAD] == 1
    assert found["b"][JobState.ACTIVE] == 1
    assert not any(found["c"].values())


def test_only_what_has_jobs_is_counted_for_whoever_knows_it() -> None:
    make_job(queue="a")
    make_job(queue="a", state=JobState.COMPLETED)
    make_job(queue="b", state=JobState.DEAD)

    pairs = statistics.queues_of_jobs()

    assert pairs == {("a", JobState.WAITING), ("b", JobState.DEAD)}
    assert {"a", "b"} <= set(statistics.queue_names(pairs))
    assert statistics.queue_names(pairs) == statistics.queue_names()
    assert statistics.counts(["a", "b", "c"], pairs=pairs) == {
        "a": {JobState.WAITING: 1},
        "b": {JobState.DEAD: 1},
        "c": {},
    }


def test_the_longest_waiting_job_is_the_one_due_first() -> None:
    at = now()
    make_job(queue="a", due_at=at - timedelta(minutes=1))
    make_job(queue="a", due_at=at - timedelta(minutes=9))
    make_job(queue="a", due_at=at - timedelta(hours=9), state=JobState.COMPLETED)

    assert statistics.oldest(["a", "b"]) == {"a": at - timedelta(minutes=9)}


def test_the_overview_takes_as_many_queries_for_many_queues_as_for_one(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    add("a")
    ledger.commit([ending("a")])

    for queues in (["mail"], ["mail", *map(str, range(20))]):
        with django_assert_num_queries(4):
            found = statistics.overview(queues)

    assert found[0].name == "mail"
    assert sum(point.completed for point in found[0].line) == 1


def test_old_minutes_become_hours_once() -> None:
    hour = (now() - timedelta(days=3)).replace(minute=0, second=0, microsecond=0)
    for minute, shard in ((0, 1), (0, 2), (59, 1), (60, 1)):
        MinuteStatistic.objects.create(
            minute=hour + timedelta(minutes=minute),
            queue="mail",
            actor="send",
            shard=shard,
            completed=1,
            run_3=2,
        )
    MinuteStatistic.objects.create(minute=now(), queue="mail", actor="send", shard=1)

    # The two rows of the first minute are one by then.
    assert statistics.roll_up() == 3
    assert statistics.roll_up() == 0

    rows = HourStatistic.objects.order_by("hour").values_list("hour", "completed", "run_3")
    assert list(rows) == [(hour, 3, 6), (hour + timedelta(hours=1), 1, 2)]
    assert MinuteStatistic.objects.count() == 1
