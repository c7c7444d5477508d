"""Whatever happens in whatever order: no job is lost, none runs twice without a reason."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import dramatiq
import pytest
from django.db import transaction
from django.db.models import F
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queueadmin import crashes, deadletters, dispatcher, jobs, queues, recorder, recovery
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.clock import now
from queueadmin.models import Attempt, DeadLetter, FailureGroup, Job
from queueadmin.policies import Policy
from queueadmin.states import (
    RUNNABLE,
    TIMED,
    TRANSITIONS,
    UNFINISHED,
    DeadLetterStatus,
    DeathCause,
    JobState,
    Outcome,
)
from tests.queueadmin.stepped import ENDINGS, Process, declare

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

WIDE, NARROW = "wide", "narrow"
QUEUES = [WIDE, NARROW]
ATTEMPTS = 2
PROCESSES = 2
DUTIES = {
    duty.__name__: duty
    for duty in (
        dispatcher.promote,
        dispatcher.confirm,
        dispatcher.rescue,
        dispatcher.refill,
        dispatcher.cancel,
    )
}
#: More of them, each time others, when one looks for trouble.
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "0"))

RECORDED = {
    "succeed": {Outcome.COMPLETED},
    # Who was asked to stop gets no further attempt.
    "fail": {Outcome.RETRYING, Outcome.DEAD, Outcome.CANCELLED},
    "reject": {Outcome.DEAD},
}


@dataclass
class Run:
    """An actor that was started."""

    job: str
    dispatch: int
    process: Process
    #: Its process was killed, or taken for dead, before the outcome was recorded.
    is_excused: bool
    how: str = ""
    is_recorded: bool = False


class EngineMachine(RuleBasedStateMachine):
    """Processes of the real engine on a real ledger and broker, beside a list of what they did.

    Time moves only where a rule moves it: all that is in the ledger grows older by an hour.
    """

    ids = Bundle("ids")
    which = st.integers(0, PROCESSES - 1)

    def __init__(self, make_broker) -> None:
        super().__init__()
        self.make_broker = make_broker
        self.processes: list[Process] = []
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.crashes = Counter()
        self.cancelled: set[str] = set()
        self.states: dict[str, str] = {}
        self.number = 0

    @initialize(target=ids)
    def begin(self) -> MultipleResults:
        for model in (DeadLetter, FailureGroup, Attempt, Job):
            model.objects.all().delete()
        self.broker = self.make_broker()
        self.broker.transport._client.flushdb()
        declare(self.broker, QUEUES)
        dramatiq.set_broker(self.broker)
        for queue in QUEUES:
            queues.resume(queue, by=None)
        for _ in range(PROCESSES):
            self.boot()
        return multiple(*(self._enqueue(queue) for queue in (WIDE, NARROW, WIDE, NARROW)))

    def _able(self) -> list[Process]:
        return [process for process in self.processes if not process.is_frozen]

    def able(self, which: int) -> Process:
        """Return one of the processes that do something."""
        able = self._able()
        return able[which % len(able)]

    # --- Producers and people ---------------------------------------------------------
    @rule(
        target=ids, queue=st.sampled_from(QUEUES), is_delayed=st.booleans(), is_pushed=st.booleans()
    )
    def enqueue(self, queue: str, is_delayed: bool, is_pushed: bool) -> str:
        return self._enqueue(queue, is_delayed=is_delayed, is_pushed=is_pushed)

    def _enqueue(self, queue: str, *, is_delayed: bool = False, is_pushed: bool = True) -> str:
        self.number += 1
        message = self.broker.get_actor(queue).message().copy(message_id=f"job-{self.number}")
        send = self.broker.transport.send
        if not is_pushed:
            self.broker.transport.send = self._away
        self.broker.enqueue(message, delay=60_000 if is_delayed else None)
        self.broker.transport.send, self.broker._pushing_paused_until = send, 0.0
        return message.message_id

    @staticmethod
    def _away(parcels) -> None:
        raise BrokerUnavailable("away")

    @rule(queue=st.sampled_from(QUEUES))
    def enqueue_and_roll_back(self, queue: str) -> None:
        with transaction.atomic():
            message = self.broker.enqueue(self.broker.get_actor(queue).message())
            transaction.set_rollback(True)
        assert not Job.objects.filter(pk=message.message_id).exists()

    @rule(job=ids, verb=st.sampled_from(["cancel", "requeue", "reschedule", "retry"]))
    def decide(self, job: str, verb: str) -> None:
        if verb == "cancel":
            result = jobs.cancel(job, by=None)
            if result.done or result.stopping:
                self.cancelled.add(job)
        elif verb == "requeue":
            letters = DeadLetter.objects.filter(job_id=job).values_list("pk", flat=True)
            if deadletters.requeue(list(letters), by=None).done:
                # Asked for a new round, it is not asked to stop any more.
                self.cancelled.discard(job)
        elif verb == "reschedule":
            jobs.reschedule(job, now() + timedelta(minutes=1), by=None)
        else:
            jobs.retry(job, by=None)

    @rule(queue=st.sampled_from(QUEUES), is_on=st.booleans())
    def pause_or_resume(self, queue: str, is_on: bool) -> None:
        queues.pause(queue, by=None, reason="x") if is_on else queues.resume(queue, by=None)

    # --- Workers ----------------------------------------------------------------------
    def boot(self) -> None:
        self.processes.append(Process(self.make_broker(), QUEUES))

    @precondition(lambda self: self._able())
    @rule(which=which, is_shown=st.booleans())
    def succeed(self, which: int, is_shown: bool) -> None:
        self._work(self.able(which), "succeed", is_shown=is_shown)

    @precondition(lambda self: self._able())
    @rule(which=which, is_shown=st.booleans())
    def fail(self, which: int, is_shown: bool) -> None:
        self._work(self.able(which), "fail", is_shown=is_shown)

    @precondition(lambda self: self._able())
    @rule(which=which, is_shown=st.booleans())
    def reject(self, which: int, is_shown: bool) -> None:
        self._work(self.able(which), "reject", is_shown=is_shown)

    def _work(self, process: Process, how: str, *, is_shown: bool) -> None:
        """Take all the steps of a run at once, as most of them are."""
        if process.running is None and not self._start(process):
            return
        if is_shown:
            process.show()
        self._finish(process, how)
        self._record(process, settles=True)

    @precondition(lambda self: self._able())
    @rule(which=which)
    def start(self, which: int) -> None:
        process = self.able(which)
        if process.running is None:
            self._start(process)

    def _start(self, process: Process) -> bool:
        found = process.start()
        if found is None:
            return False
        job, dispatch = found
        row = Job.objects.get(pk=job)
        assert row.state in RUNNABLE
        assert not process.broker.controls.of(row.queue).is_paused
        for earlier in self.runs[job]:
            assert earlier.is_excused or (earlier.is_recorded and earlier.how != "succeed")
        run = Run(job, dispatch, process, is_excused=not process.broker.heart.is_fresh())
        self.runs[job].append(run)
        if row.queue == NARROW:
            assert sum(not one.is_excused for one in self._in_progress(NARROW)) <= 1
        return True

    def _in_progress(self, queue: str) -> list[Run]:
        found = [run for runs in self.runs.values() for run in runs if not run.how]
        names = dict(Job.objects.values_list("pk", "queue"))
        return [run for run in found if run.process.running and names[run.job] == queue]

    @precondition(lambda self: any(process.running for process in self._able()))
    @rule(how=st.sampled_from(sorted(ENDINGS)))
    def finish(self, how: str) -> None:
        self._finish(next(process for process in self._able() if process.running), how)

    def _finish(self, process: Process, how: str) -> None:
        self._unrecorded(process)[-1].how = how
        process.finish(how)

    def _unrecorded(self, process: Process) -> list[Run]:
        found = [run for runs in self.runs.values() for run in runs if run.process is process]
        return sorted((run for run in found if not run.is_recorded), key=lambda run: run.how == "")

    @precondition(lambda self: self._able())
    @rule(which=which, settles=st.booleans())
    def record(self, which: int, settles: bool) -> None:
        self._record(self.able(which), settles=settles)

    def _record(self, process: Process, *, settles: bool) -> None:
        ended = [run for run in self._unrecorded(process) if run.how]
        counting = {}
        if ended:
            jobs_of = Job.objects.filter(pk__in=[run.job for run in ended])
            counting = dict(jobs_of.values_list("pk", "dispatch"))
        # Others were given their jobs meanwhile; a crash may have been noted of them.
        late = [run for run in ended if run.dispatch != counting[run.job]]
        known = [self._outcomes(run) for run in late]
        process.record(settles=settles)
        assert [self._outcomes(run) for run in late] == known, "an outcome of another dispatch"
        for run in ended:
            found = self._outcomes(run)
            # Whoever was taken for dead may be late; nobody else.
            run.is_recorded = bool(found) or not run.is_excused
            if run.is_recorded and not run.is_excused:
                assert found
                assert found <= RECORDED[run.how]
            elif not run.is_recorded:
                run.is_recorded, run.how = True, "late"

    @staticmethod
    def _outcomes(run: Run) -> set[str]:
        outcomes = Attempt.objects.filter(job_id=run.job, dispatch=run.dispatch)
        return set(outcomes.values_list("outcome", flat=True))

    @precondition(lambda self: self._able())
    @rule(which=which)
    def beat(self, which: int) -> None:
        self.able(which).beat()
        self.able(which).show()

    # --- Faults -----------------------------------------------------------------------
    @rule(
        which=which,
        runs=st.booleans(),
        is_reported=st.booleans(),
        has_committed=st.booleans(),
    )
    def kill(self, which: int, runs: bool, is_reported: bool, has_committed: bool) -> None:
        process = self.processes[which]
        self._let_run(process, runs)
        if has_committed and not process.is_frozen:
            self._record(process, settles=False)
        for run in self._unrecorded(process):
            run.is_excused = True
        self.processes.remove(process)
        ran = process.kill()
        if is_reported:
            # By its supervisor; the host may be gone with it.
            self.crashes.update(run.job for run in ran)
            crashes.record(self.broker, ran, worker="host:1")
        self.boot()

    @precondition(lambda self: self._able())
    @rule(which=which, runs=st.booleans())
    def freeze(self, which: int, runs: bool) -> None:
        self._freeze(self.able(which), runs=runs)

    def _freeze(self, process: Process, *, runs: bool) -> None:
        self._let_run(process, runs)
        for run in self._unrecorded(process):
            run.is_excused = True
        process.freeze()

    @precondition(lambda self: self._able())
    @rule(which=which, how=st.sampled_from(sorted(ENDINGS)), other_starts=st.booleans())
    def be_late(self, which: int, how: str, other_starts: bool) -> None:
        """Freeze as it runs, and report only when others have been given its job."""
        process = self.able(which)
        self._freeze(process, runs=True)
        dispatcher.rescue(self.broker)
        if other_starts and self._able() and self._able()[0].running is None:
            self._start(self._able()[0])
        process.is_frozen = False
        if process.running is not None:
            self._finish(process, how)
        self._record(process, settles=True)
        process.beat()

    def _let_run(self, process: Process, runs: bool) -> None:
        if runs and process.running is None and not process.is_frozen:
            self._start(process)

    @precondition(lambda self: any(process.is_frozen for process in self.processes))
    @rule(is_heart_first=st.booleans())
    def thaw(self, is_heart_first: bool) -> None:
        process = next(process for process in self.processes if process.is_frozen)
        process.is_frozen = False
        if is_heart_first:
            process.beat()

    @rule()
    def flush(self) -> None:
        self.broker.transport._client.flushdb()
        # The time that every living process is given to say what it holds.
        for process in self.processes:
            if not process.is_frozen:
                process.beat()

    # --- Dispatcher and recovery ------------------------------------------------------
    @rule(name=st.sampled_from(sorted(DUTIES)), is_later=st.booleans())
    def dispatch(self, name: str, is_later: bool) -> None:
        if is_later:
            self._an_hour_passes()
        result = DUTIES[name](self.broker)
        if isinstance(result, Iterator):
            for _ in result:
                pass

    @rule(is_later=st.booleans())
    def recover(self, is_later: bool) -> None:
        if is_later:
            self._an_hour_passes()
        assert recovery.recover() is not None

    @staticmethod
    def _an_hour_passes() -> None:
        hour = timedelta(hours=1)
        Job.objects.update(
            due_at=F("due_at") - hour, cancel_requested_at=F("cancel_requested_at") - hour
        )

    # --- What must hold ---------------------------------------------------------------
    @invariant()
    def states_follow_each_other_as_written_down(self) -> None:
        found = dict(Job.objects.values_list("pk", "state"))
        assert found.keys() >= self.states.keys()
        for job, before in self.states.items():
            after = found[job]
            # One rule may take two steps, such as to waiting and on.
            once = TRANSITIONS[JobState(before)]
            twice = {state for middle in once for state in TRANSITIONS[middle]}
            assert after == before or after in once | twice, f"{before} -> {after}"
        self.states = found

    @invariant()
    def every_dispatch_has_one_outcome(self) -> None:
        counted = Counter(Attempt.objects.values_list("job_id", "dispatch"))
        assert not [key for key, number in counted.items() if number > 1]

    @invariant()
    def every_death_is_in_one_open_dead_letter(self) -> None:
        dead = Job.objects.filter(state=JobState.DEAD).values_list("pk", flat=True)
        open_letters = DeadLetter.objects.filter(status=DeadLetterStatus.PENDING)
        assert sorted(open_letters.values_list("job_id", flat=True)) == sorted(dead)

    # --- The end ----------------------------------------------------------------------
    def teardown(self) -> None:
        try:
            if hasattr(self, "broker"):
                self._come_to_rest()
                self._judge()
        finally:
            for process in self.processes:
                process.close()
            if hasattr(self, "broker"):
                self.broker.close()

    def _come_to_rest(self) -> None:
        """Everything works again; nobody lends a hand."""
        for queue in QUEUES:
            queues.resume(queue, by=None)
        for _ in range(20):
            self._an_hour_passes()
            for process in self.processes:
                process.is_frozen = False
                process.beat()
            for duty in DUTIES.values():
                duty(self.broker)
            for process in self.processes:
                if process.running is not None:
                    self._finish(process, "succeed")
                while self._start(process):
                    self._finish(process, "succeed")
                self._record(process, settles=True)
            if not Job.objects.filter(state__in=UNFINISHED).exists():
                break

    def _judge(self) -> None:
        assert not Job.objects.filter(state__in=[*RUNNABLE, *TIMED]).exists()
        assert Job.objects.count() == self.number
        assert [self.broker.transport.size(queue) for queue in QUEUES] == [0, 0]
        for job in Job.objects.select_related("dead_letter"):
            ends = [run.how for run in self.runs[job.pk]]
            if job.state == JobState.COMPLETED:
                assert "succeed" in ends
            elif job.state == JobState.CANCELLED:
                assert job.pk in self.cancelled
            elif job.dead_letter.died_by == DeathCause.WORKER_CRASHED:
                assert self.crashes[job.pk] >= 3
            elif job.dead_letter.died_by == DeathCause.ATTEMPTS_EXHAUSTED:
                assert ends.count("fail") >= ATTEMPTS
            else:
                assert "reject" in ends


def test_any_order_of_work_and_faults_loses_nothing(make_broker, settings_of_queues):
    run_state_machine_as_test(
        lambda: EngineMachine(make_broker),
        settings=settings(
            max_examples=EXAMPLES or 15,
            derandomize=not EXAMPLES,
            database=None,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Shrinking takes minutes.
            phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        ),
    )


@pytest.fixture
def settings_of_queues(settings, monkeypatch):
    policy = Policy(attempts=ATTEMPTS)
    settings.QUEUEADMIN = {
        **settings.QUEUEADMIN,
        "QUEUES": {WIDE: policy, NARROW: Policy(attempts=ATTEMPTS, concurrency=1)},
        # A slow machine is no fault; the rules say who is taken for dead.
        "HEARTBEAT_TIMEOUT_MS": 3_600_000,
    }
    # Thousands of jobs fail here on purpose.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    monkeypatch.setattr(recorder, "_ACTIVE_AFTER_SECONDS", -1.0)
    previous = dramatiq.get_broker()
    yield
    dramatiq.set_broker(previous)
