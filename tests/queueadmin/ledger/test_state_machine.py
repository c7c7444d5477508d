"""Any order of the ledger's verbs keeps to the transitions that are written down."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from queueadmin import ledger
from queueadmin.clock import now
from queueadmin.models import Attempt, DeadLetter, Job
from queueadmin.states import (
    FINISHED,
    RUNNABLE,
    TIMED,
    TRANSITIONS,
    DeadLetterStatus,
    DeathCause,
    JobState,
    Outcome,
)

START = now()
HOUR = timedelta(hours=1)

#: How a run may end: state, outcome, whether it counts as an attempt, hours until it is due.
ENDINGS = {
    "completed": (JobState.COMPLETED, Outcome.COMPLETED, True, None),
    "dead": (JobState.DEAD, Outcome.DEAD, True, None),
    "cancelled": (JobState.CANCELLED, Outcome.CANCELLED, False, None),
    "retry later": (JobState.RETRYING, Outcome.RETRYING, True, 2),
    "retry at once": (JobState.WAITING, Outcome.RETRYING, True, 0),
    "returned": (JobState.WAITING, Outcome.RETURNED, False, 0),
}


@dataclass
class Expected:
    """What a job's row must say."""

    state: JobState
    due: int
    dispatch: int = 1
    attempts: int = 0
    recorded: int = 0
    deaths: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """The real functions on a real database beside a model of a few lines.

    Time stands in whole hours after START and only moves when a rule moves it. Dispatch
    numbers are the current one or an older one, as a late worker would report.
    """

    jobs = Bundle("jobs")
    ages = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Expected] = {}
        self.hour = 0

    @initialize()
    def empty(self) -> None:
        DeadLetter.objects.all().delete()
        Attempt.objects.all().delete()
        Job.objects.all().delete()

    def move(self, job: str, state: JobState, **changes: Any) -> None:
        before = self.model[job]
        assert state in TRANSITIONS[before.state], f"{before.state} -> {state}"
        before.state = state
        for name, value in changes.items():
            setattr(before, name, value)

    @rule(target=jobs, number=st.integers(0, 4), wait=st.integers(0, 3))
    def enqueue(self, number: int, wait: int) -> str:
        job = f"job-{number}"
        at = START + self.hour * HOUR
        new = ledger.insert(
            [
                ledger.NewJob(
                    id=job,
                    queue=f"queue-{number % 2}",
                    actor="work",
                    message=b'{"options":{},"args":[]}',
                    enqueued_at=at,
                    due_at=at + wait * HOUR if wait else None,
                )
            ]
        )
        assert new == (set() if job in self.model else {job})
        if new:
            state = JobState.SCHEDULED if wait else JobState.WAITING
            self.model[job] = Expected(state, due=self.hour + wait)
        return job

    @rule(hours=st.integers(0, 2))
    def promote(self, hours: int) -> None:
        self.hour += hours
        due = {
            job
            for job, expected in self.model.items()
            if expected.state in TIMED and expected.due <= self.hour
        }

        promoted = ledger.promote_due(START + self.hour * HOUR, 100)

        assert {parcel.job for parcel in promoted} == due
        for job in due:
            self.move(job, JobState.WAITING)

    @rule(job=jobs, age=ages)
    def mark_active(self, job: str, age: int) -> None:
        expected = self.model[job]

        changed = ledger.mark_active([(job, expected.dispatch - age, START, "host:1")])

        assert changed == (expected.state == JobState.WAITING and not age)
        if changed:
            self.move(job, JobState.ACTIVE)

    @rule(job=jobs, age=ages, how=st.sampled_from(sorted(ENDINGS)))
    def end(self, job: str, age: int, how: str) -> None:
        state, outcome, counts, wait = ENDINGS[how]
        self._end(job, age, state, outcome, counts, wait)

    @rule(job=jobs, age=ages)
    def park(self, job: str, age: int) -> None:
        # Nothing was run, so nothing can have shown it as active meanwhile.
        if self.model[job].state != JobState.ACTIVE:
            self._end(job, age, JobState.SCHEDULED, Outcome.RETURNED, counts=False, wait=1)

    def _end(
        self,
        job: str,
        age: int,
        state: JobState,
        outcome: Outcome,
        counts: bool,
        wait: int | None,
    ) -> None:
        expected = self.model[job]
        at = START + self.hour * HOUR
        ending = ledger.Ending(
            job=job,
            dispatch=expected.dispatch - age,
            state=state,
            outcome=outcome,
            attempt=expected.attempts + 1 if counts else 0,
            started_at=at,
            finished_at=at,
            due_at=None if wait is None else at + wait * HOUR,
            cause=DeathCause.REJECTED if state == JobState.DEAD else None,
            queue="q",
            actor="work",
        )

        committed = ledger.commit([ending])

        is_current = expected.state in RUNNABLE and not age
        assert committed.accepted == ({job} if is_current else set())
        assert committed.stale == ([] if is_current else [ending])
        assert [parcel.id for parcel in committed.parcels] == (
            [f"{job}:{expected.dispatch + 1}"] if is_current and state == JobState.WAITING else []
        )
        if is_current:
            self.move(
                job,
                state,
                dispatch=expected.dispatch + (state not in FINISHED),
                attempts=expected.attempts + counts,
                recorded=expected.recorded + counts,
                deaths=expected.deaths + (state == JobState.DEAD),
                due=expected.due if wait is None else self.hour + wait,
            )

    @rule(job=jobs, age=ages)
    def rescue(self, job: str, age: int) -> None:
        expected = self.model[job]

        again = ledger.rescue([(job, expected.dispatch - age)])

        is_current = expected.state in RUNNABLE and not age
        assert [parcel.job for parcel in again] == ([job] if is_current else [])
        if is_current:
            self.move(job, JobState.WAITING, dispatch=expected.dispatch + 1)

    @rule(job=jobs)
    def requeue(self, job: str) -> None:
        expected = self.model[job]

        moved = ledger.requeue([job]).moved

        assert moved == ({job} if expected.state == JobState.DEAD else set())
        if moved:
            self.move(job, JobState.WAITING, dispatch=expected.dispatch + 1, attempts=0)

    @rule(number=st.integers(0, 1))
    def cancel_queue(self, number: int) -> None:
        found = [
            job
            for job, expected in self.model.items()
            if int(job[-1]) % 2 == number and expected.state in (JobState.WAITING, *TIMED)
        ]

        assert ledger.cancel_queue(f"queue-{number}") == len(found)
        for job in found:
            self.move(job, JobState.CANCELLED, dispatch=self.model[job].dispatch + 1)

    @invariant()
    def the_rows_are_as_expected(self) -> None:
        rows = Job.objects.values_list("id", "state", "dispatch", "attempts")
        assert {row[0]: row[1:] for row in rows} == {
            job: (expected.state, expected.dispatch, expected.attempts)
            for job, expected in self.model.items()
        }
        assert Attempt.objects.count() == sum(one.recorded for one in self.model.values())

    @invariant()
    def every_death_is_in_one_dead_letter(self) -> None:
        letters = {letter.job_id: letter for letter in DeadLetter.objects.all()}
        assert {job: letter.deaths for job, letter in letters.items()} == {
            job: expected.deaths for job, expected in self.model.items() if expected.deaths
        }
        for job, expected in self.model.items():
            if expected.state == JobState.DEAD:
                assert letters[job].status == DeadLetterStatus.PENDING


@pytest.mark.django_db
def test_any_order_of_verbs_keeps_to_the_transitions():
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
    )
