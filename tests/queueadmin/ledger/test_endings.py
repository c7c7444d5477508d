"""Outcomes: one per dispatch, whoever reports, in whatever order."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from queueadmin import ledger
from queueadmin.clock import now
from queueadmin.models import Attempt, DeadLetter, Job, MinuteStatistic, UniqueKey
from queueadmin.models.statistic import BOUNDS_MS
from queueadmin.states import (
    FINISHED,
    RUNNABLE,
    TRANSITIONS,
    UNFINISHED,
    DeadLetterStatus,
    DeathCause,
    JobState,
    Outcome,
)


def add(job_id="a", **fields):
    job = ledger.NewJob(
        id=job_id,
        queue="q",
        actor="work",
        message=b'{"options":{},"args":[]}',
        enqueued_at=now(),
        **fields,
    )
    assert ledger.insert([job]) == {job_id}
    return job_id


def ending(job="a", dispatch=1, state=JobState.COMPLETED, **fields):
    at = now()
    defaults = {
        "outcome": Outcome.COMPLETED,
        "attempt": 1,
        "started_at": at,
        "finished_at": at,
        "queue": "q",
        "actor": "work",
    }
    return ledger.Ending(job=job, dispatch=dispatch, state=state, **{**defaults, **fields})


def dying(job="a", dispatch=1, **fields):
    return ending(
        job,
        dispatch,
        JobState.DEAD,
        **{"outcome": Outcome.DEAD, "cause": DeathCause.REJECTED, "error_class": "E", **fields},
    )


@pytest.mark.django_db
class TestCommit:
    def test_a_replayed_batch_changes_nothing(self):
        add("a")
        add("b")
        batch = [ending("a"), dying("b")]

        first, second = ledger.commit(batch), ledger.commit(batch)

        assert first.accepted == {"a", "b"}
        assert second.accepted == set()
        assert len(second.stale) == 2
        assert Attempt.objects.count() == 2
        assert DeadLetter.objects.get().deaths == 1

    def test_one_job_twice_in_a_batch_has_one_outcome(self):
        add()

        ledger.commit([ending(), dying()])

        assert Attempt.objects.count() == 1
        assert not DeadLetter.objects.exists()

    def test_the_current_outcome_counts_though_a_late_one_is_in_the_same_batch(self):
        for job in ("a", "b"):
            ledger.rescue([(add(job), 1)])

        committed = ledger.commit([dying("a"), ending("a", 2), ending("b", 2), dying("b")])

        assert committed.accepted == {"a", "b"}
        assert set(Job.objects.values_list("state", flat=True)) == {JobState.COMPLETED}

    def test_an_outcome_for_an_old_dispatch_is_stale(self):
        add()
        ledger.rescue([("a", 1)])

        late = ledger.commit([dying(dispatch=1)])
        current = ledger.commit([ending(dispatch=2)])

        assert [stale.dispatch for stale in late.stale] == [1]
        assert current.accepted == {"a"}
        assert Job.objects.get().state == JobState.COMPLETED
        assert not DeadLetter.objects.exists()

    def test_an_outcome_for_the_future_is_stale_too(self):
        add()

        assert ledger.commit([ending(dispatch=2)]).accepted == set()

    def test_an_unknown_job_is_stale(self):
        assert len(ledger.commit([ending("nobody")]).stale) == 1
        assert not Attempt.objects.exists()

    def test_what_is_the_same_in_all_rows_and_what_is_not_reach_their_own_jobs(self):
        at, errors = now(), ("", "a", "b")
        endings = [
            ending(
                add(f"job{number}"),
                finished_at=at + timedelta(seconds=number),
                duration_ms=number / 3,
                error_message=errors[number],
                worker="host:1",
            )
            for number in range(3)
        ]
        text = "%s 100 % it's {0} \\"
        ledger.commit(endings)
        ledger.commit([ending(add("alone"), duration_ms=7, error_message=text)])

        for number in range(3):
            job = Job.objects.get(pk=f"job{number}")
            attempt = job.attempt_set.get()
            assert job.finished_at == at + timedelta(seconds=number)
            assert attempt.duration_ms == pytest.approx(number / 3)
            assert (job.error_message, attempt.error_message) == (errors[number],) * 2
            assert (job.worker, attempt.worker) == ("host:1", "host:1")
        alone = Attempt.objects.get(job="alone")
        assert (alone.duration_ms, alone.error_message, alone.delay_ms) == (7, text, None)

    def test_a_retry_due_at_once_is_pushed_with_the_commit(self):
        add()

        committed = ledger.commit(
            [ending(state=JobState.WAITING, outcome=Outcome.RETRYING, due_at=now(), delay_ms=0)]
        )

        (parcel,) = committed.parcels
        assert (parcel.id, b'"retries":1' in parcel.data) == ("a:2", True)

    def test_a_returned_run_counts_no_attempt(self):
        add()

        ledger.commit(
            [ending(state=JobState.WAITING, outcome=Outcome.RETURNED, attempt=0, due_at=now())]
        )

        job = Job.objects.get()
        assert (job.state, job.attempts, job.dispatch) == (JobState.WAITING, 0, 2)
        assert not Attempt.objects.exists()

    def test_what_after_hooks_enqueue_is_added_with_the_outcome_once(self):
        add()
        child = ledger.NewJob(
            id="child", queue="q", actor="work", message=b"{}", enqueued_at=now(), parent="a"
        )

        first = ledger.commit([ending(follow_ups=[child])])
        ledger.commit([ending(follow_ups=[child])])

        assert [parcel.job for parcel in first.parcels] == ["child"]
        assert Job.objects.get(pk="child").parent == "a"

    def test_a_stale_run_enqueues_nothing(self):
        add()
        ledger.rescue([("a", 1)])
        child = ledger.NewJob(id="child", queue="q", actor="work", message=b"{}", enqueued_at=now())

        committed = ledger.commit([ending(dispatch=1, follow_ups=[child])])

        assert committed.parcels == []
        assert not Job.objects.filter(pk="child").exists()

    def test_a_requeued_job_that_completes_recovers_its_dead_letter(self):
        add()
        ledger.commit([dying()])
        _requeue()

        ledger.commit([ending(dispatch=2)])

        letter = DeadLetter.objects.get()
        assert letter.status == DeadLetterStatus.RECOVERED
        assert letter.recovered_at is not None

    def test_a_requeued_job_that_dies_again_reopens_the_same_dead_letter(self):
        add()
        ledger.commit([dying(error_message="first")])
        _requeue()

        ledger.commit([dying(dispatch=2, error_message="second")])

        letter = DeadLetter.objects.get()
        assert (letter.status, letter.deaths) == (DeadLetterStatus.PENDING, 2)
        assert letter.error_message == "second"

    def test_a_requeue_gives_a_new_round_of_attempts(self):
        add(max_attempts=3)
        ledger.commit([dying(attempt=3)])

        assert ledger.requeue(["a", "nobody"]).moved == {"a"}
        assert ledger.requeue(["a"]).moved == set()

        job = Job.objects.get()
        assert (job.state, job.attempts, job.dispatch, job.requeues) == ("waiting", 0, 2, 1)

    def test_active_is_shown_only_for_the_current_dispatch(self):
        add()
        ledger.rescue([("a", 1)])

        assert ledger.mark_active([("a", 1, now(), "w")]) == 0
        assert ledger.mark_active([("a", 2, now(), "w")]) == 1
        assert ledger.mark_active([("a", 2, now(), "w")]) == 0


def _requeue():
    ledger.requeue(["a"])
    DeadLetter.objects.update(status=DeadLetterStatus.REQUEUED)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rescuer_first", [True, False])
def test_outcome_and_rescue_of_the_same_dispatch_have_one_winner(rescuer_first):
    add()
    acts = [lambda: ledger.rescue([("a", 1)]), lambda: ledger.commit([ending()])]
    if not rescuer_first:
        acts.reverse()

    for act in acts:
        act()

    job = Job.objects.get()
    if rescuer_first:
        assert (job.state, job.dispatch, Attempt.objects.count()) == ("waiting", 2, 0)
    else:
        assert (job.state, job.dispatch, Attempt.objects.count()) == ("completed", 1, 1)


@pytest.mark.django_db(transaction=True)
def test_two_processes_that_report_the_same_dispatch_at_once_record_one_outcome():
    for number in range(20):
        add(f"job-{number}")
    barrier = threading.Barrier(2)

    def report(make):
        barrier.wait()
        try:
            return len(ledger.commit([make(f"job-{number}") for number in range(20)]).accepted)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        accepted = [future.result() for future in [pool.submit(report, m) for m in (ending, dying)]]

    assert sum(accepted) == 20
    assert Attempt.objects.count() == 20


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.RETRYING])
def test_an_outcome_alone_is_one_question_to_postgresql(state):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is not asked over a wire.")
    outcome = ending(add(), state=state, outcome=Outcome(state), due_at=now())

    with CaptureQueriesContext(connection) as asked:
        assert ledger.commit([outcome]).accepted == {"a"}

    assert len(asked) == 1
    assert Job.objects.get().state == state


@pytest.mark.django_db(transaction=True)
def test_an_outcome_alone_that_waits_for_its_job_holds_up_no_other():
    if connection.vendor != "postgresql":
        pytest.skip("On SQLite one writes at a time.")
    at = now()
    alone, other = (ending(add(name), finished_at=at) for name in ("a", "b"))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Job.objects.select_for_update().get(pk="a")
            waiting = pool.submit(_commit_elsewhere, alone)
            _wait_until_somebody_waits()
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '5s'")
            # It counts in the same row of the statistics.
            assert ledger.commit([other]).accepted == {"b"}
            assert not waiting.done()
        assert waiting.result(10).accepted == {"a"}
    assert MinuteStatistic.objects.get().completed == 2


def _commit_elsewhere(outcome):
    try:
        return ledger.commit([outcome])
    finally:
        connection.close()


def _wait_until_somebody_waits():
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks "
                "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waits for this connection.")


class Alone(TestCase):
    """What takes a shorter way alone than in company leads to the same."""

    @settings(max_examples=100, deadline=None)
    @given(
        outcome=st.sampled_from([Outcome.COMPLETED, Outcome.RETRYING]),
        waited_ms=st.sampled_from([-5, 0, *BOUNDS_MS])
        | st.integers(0, 3_600_000_000).map(lambda microseconds: microseconds / 1000),
        duration_ms=st.sampled_from([0, *BOUNDS_MS]) | st.floats(0, 400_000),
        text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        job=st.sampled_from(
            [
                {},
                {"unique_key": "key"},
                {"cancel_requested_at": now()},
                {"requeues": 1},
                {"crashes": 1},
                {"dispatch": 2},
                *({"state": state} for state in JobState),
            ]
        ),
    )
    def test_alone_and_together_the_ledger_says_the_same(
        self, outcome, waited_ms, duration_ms, text, job
    ):
        at = now()
        due_at = at - timedelta(milliseconds=waited_ms)
        retry = {"due_at": at + timedelta(seconds=9), "delay_ms": 9_000}
        found = []
        for company in ([], [ending("nobody")]):
            with transaction.atomic():
                add(unique_key=job.get("unique_key", ""))
                Job.objects.update(**{"due_at": due_at, "enqueued_at": at, **job})
                own = ending(
                    state=JobState(outcome),
                    outcome=outcome,
                    started_at=at,
                    finished_at=at,
                    duration_ms=duration_ms,
                    worker="host:1",
                    error_class=text[:9],
                    error_message=text,
                    traceback=text * 3,
                    result=f'"{duration_ms}"',
                    **(retry if outcome == Outcome.RETRYING else {}),
                )
                committed = ledger.commit([own, *company])
                tables = (Job, Attempt, UniqueKey, MinuteStatistic)
                rows = [list(table.objects.values()) for table in tables]
                for row in (row for table in rows for row in table):
                    # Numbered by the database.
                    row.pop("id")
                found.append((committed.accepted, rows))
                transaction.set_rollback(True)
        assert found[0] == found[1]


class StateMachine(TestCase):
    """Random sequences of everything the ledger can do never take a forbidden step."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *("complete", "die", "retry", "retry_now", "return", "park"),
                    *("promote", "rescue", "active", "requeue", "stale"),
                    *("cancel", "withdraw", "reschedule", "reschedule_held", "run_now"),
                ]
            ),
            max_size=12,
        ),
        st.booleans(),
        st.sampled_from(["", "key"]),
    )
    def test_only_allowed_transitions_happen(self, acts, is_scheduled, unique_key):
        due_at = now() - timedelta(seconds=1) if is_scheduled else None
        add(due_at=due_at, unique_key=unique_key)
        for act in acts:
            before = Job.objects.get()
            _do(act, before)
            after = Job.objects.get()
            if after.state != before.state:
                assert JobState(after.state) in TRANSITIONS[JobState(before.state)]
            assert after.dispatch >= before.dispatch
            if before.is_cancelling:
                # Whoever was asked to stop is never given another run.
                assert after.dispatch == before.dispatch or after.state == JobState.CANCELLED
                assert after.state in (*RUNNABLE, *FINISHED)
            is_held = bool(unique_key) and after.state in UNFINISHED
            assert UniqueKey.objects.exists() == is_held
            if before.state not in RUNNABLE:
                assert after.attempts in (before.attempts, 0)
            assert DeadLetter.objects.filter(status=DeadLetterStatus.PENDING).count() == (
                after.state == JobState.DEAD
            )
        Job.objects.all()  # the row is still readable


def _do(act, job):
    past = now() - timedelta(seconds=1)
    attempt = job.attempts + 1
    endings = {
        "complete": lambda: ending(dispatch=job.dispatch, attempt=attempt),
        "die": lambda: dying(dispatch=job.dispatch, attempt=attempt),
        "retry": lambda: ending(
            dispatch=job.dispatch,
            state=JobState.RETRYING,
            outcome=Outcome.RETRYING,
            due_at=past,
            attempt=attempt,
        ),
        "retry_now": lambda: ending(
            dispatch=job.dispatch,
            state=JobState.WAITING,
            outcome=Outcome.RETRYING,
            due_at=past,
            attempt=attempt,
        ),
        "return": lambda: ending(
            dispatch=job.dispatch,
            state=JobState.WAITING,
            outcome=Outcome.RETURNED,
            attempt=0,
            due_at=past,
        ),
        "park": lambda: ending(
            dispatch=job.dispatch,
            state=JobState.SCHEDULED,
            outcome=Outcome.RETURNED,
            attempt=0,
            due_at=past,
        ),
        "stale": lambda: dying(dispatch=job.dispatch + 7, attempt=attempt),
    }
    if act == "park" and job.state != JobState.WAITING:
        return  # only what was not started is parked
    if act in endings:
        ledger.commit([endings[act]()])
    elif act == "promote":
        ledger.promote_due(now(), 10)
    elif act == "rescue":
        ledger.rescue([(job.pk, job.dispatch)])
    elif act == "active":
        ledger.mark_active([(job.pk, job.dispatch, now(), "w")])
    elif act == "cancel":
        ledger.cancel([job.pk])
    elif act == "withdraw":
        ledger.cancel_withdrawn(ledger.cancelling(10))
    elif act == "reschedule":
        ledger.reschedule([job.pk], past, lambda parcels: {parcel.job for parcel in parcels})
    elif act == "reschedule_held":
        ledger.reschedule([job.pk], past, lambda parcels: set())
    elif act == "run_now":
        ledger.run_now([job.pk])
    elif act == "requeue" and ledger.requeue([job.pk]).moved:
        DeadLetter.objects.update(status=DeadLetterStatus.REQUEUED)
