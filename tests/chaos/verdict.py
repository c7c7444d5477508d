"""Compares journals, ledger and faults: what was promised, and what came of it."""

import itertools
import math
from collections import Counter
from dataclasses import asdict, dataclass, field

from .faults import KILLS, QUIET_SECONDS, SILENCES, Fault
from .journal import Journal, Start

#: A process silent for less than this is not taken for dead, so nothing explains a
#: second run by it: the heartbeat time-out less the second between two heartbeats.
SILENCE_SECONDS = 8.0
#: How long after a fault its consequences may show.
_CONSEQUENCE_SECONDS = 90.0
#: Within which the jobs of a killed process, and of a silent one, must be available again.
_RESCUE_BOUND_S = 5.0
_SILENCE_BOUND_S = 30.0
_FLUSHES = {"flush broker"}
_REPORTED = (
    "seed",
    "committed",
    "lost",
    "rolled_back_run",
    "effects_without_job",
    "dead_without_letter",
    "second_runs",
    "second_runs_explained",
    "rescue_p99_s",
    "clean_after_s",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the ledger says of an order's job at the end."""

    number: int
    mode: str
    job: str
    state: str
    attempts: int
    open_letters: int
    died_by: str


@dataclass(slots=True)
class Verdict:
    """The figures, and what is wrong with them."""

    seed: int
    committed: int = 0
    lost: int = 0
    rolled_back_run: int = 0
    effects_without_job: int = 0
    dead_without_letter: int = 0
    innocent_dead: int = 0
    second_runs: int = 0
    second_runs_explained: int = 0
    poisoned: int = 0
    rescue_p99_s: float = 0.0
    rescues: int = 0
    silent_p99_s: float = 0.0
    silent: int = 0
    clean_after_s: float = 0.0
    faults: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every guarantee held and the suite itself worked."""
        return not self.problems

    def lines(self) -> list[str]:
        """Return one line per guarantee, for people."""
        return [
            f"G1  committed {self.committed}, lost {self.lost}, "
            f"rolled back and run {self.rolled_back_run}",
            f"G2  effects without a completed job {self.effects_without_job}",
            f"G3  permanent failures without exactly one open dead letter "
            f"{self.dead_without_letter}",
            f"G4  second runs {self.second_runs}, explained by a fault "
            f"{self.second_runs_explained}",
            f"G7  jobs of killed workers {self.rescues}, started again within "
            f"{self.rescue_p99_s:.1f} s at the 99th percentile",
            f"G7  jobs of frozen processes and lost hosts {self.silent}, started again within "
            f"{self.silent_p99_s:.1f} s at the 99th percentile",
            f"G8  poison pills {self.poisoned}, innocent jobs dead {self.innocent_dead}",
            f"G5, G6, G9  clean {self.clean_after_s:.1f} s after the last of {self.faults} faults",
        ]

    def as_json(self) -> dict[str, object]:
        """Return the figures as one object."""
        found = asdict(self)
        found["rescue_p99_s"] = round(self.rescue_p99_s, 2)
        found["clean_after_s"] = round(self.clean_after_s, 1)
        return {name: found[name] for name in _REPORTED}


def judge(
    seed: int,
    journal: Journal,
    outcomes: list[Outcome],
    faults: list[Fault],
    clean_after_s: float | None,
    limit_s: float,
) -> Verdict:
    """Return the verdict over a run.

    Args:
        seed: of the run, to repeat it.
        journal: what producer and actors wrote.
        outcomes: one per order that is in the database.
        faults: what was done.
        clean_after_s: seconds from the last fault until nothing due was unstarted; None
            when that never came.
        limit_s: how long that may take.
    """
    verdict = Verdict(seed, committed=len(outcomes), faults=len(faults))
    say = verdict.problems.append
    kept = {outcome.number for outcome in outcomes}
    for number in sorted(journal.committed - kept)[:5]:
        say(f"order {number} was committed and is not in the database")
    verdict.lost += len(journal.committed - kept)
    undone = {number for number in journal.starts if number not in kept}
    verdict.rolled_back_run = len(undone)
    for number in sorted(undone)[:5]:
        say(f"order {number} was never committed and was run")

    poison = {outcome.number for outcome in outcomes if outcome.mode == "poison"}
    # A poison pill kills its process as surely as anybody else.
    faults = faults + [
        Fault("poison", start.at, start.at, frozenset({start.pid}))
        for number in poison
        for start in journal.starts.get(number, [])
    ]
    rescues: list[float] = []
    silent: list[float] = []
    for outcome in outcomes:
        starts = journal.starts.get(outcome.number, [])
        _judge_one(verdict, outcome, starts, faults)
        rescues += _rescues(starts, faults, KILLS)
        silent += _rescues(starts, faults, SILENCES)
    verdict.rescues, verdict.rescue_p99_s = len(rescues), _percentile99(rescues)
    if verdict.rescue_p99_s > _RESCUE_BOUND_S:
        say(f"jobs of killed workers started again after {verdict.rescue_p99_s:.1f} s only")
    verdict.silent, verdict.silent_p99_s = len(silent), _percentile99(silent)
    if verdict.silent_p99_s > _SILENCE_BOUND_S:
        say(f"jobs of silent processes started again after {verdict.silent_p99_s:.1f} s only")
    if clean_after_s is None:
        verdict.clean_after_s = limit_s
        say(f"{limit_s:.0f} s after the last fault something due is still unstarted")
    else:
        verdict.clean_after_s = clean_after_s
    return verdict


def _judge_one(
    verdict: Verdict, outcome: Outcome, starts: list[Start], faults: list[Fault]
) -> None:
    say = verdict.problems.append
    name = f"order {outcome.number} ({outcome.mode}, job {outcome.job})"
    if outcome.mode == "poison":
        verdict.poisoned += 1
        if outcome.state != "dead" or outcome.died_by != "worker_crashed":
            say(f"{name} kills its process and is {outcome.state} by {outcome.died_by!r}")
        return
    if outcome.state == "dead":
        if outcome.open_letters != 1:
            verdict.dead_without_letter += 1
            say(f"{name} is dead with {outcome.open_letters} open dead letters")
        if outcome.mode != "dead":
            verdict.innocent_dead += 1
            say(f"{name} is dead by {outcome.died_by}")
    elif outcome.state != "completed" or outcome.mode == "dead":
        verdict.lost += 1
        say(f"{name} is {outcome.state or 'not in the ledger'}")
    if any(start.ended_at is not None for start in starts) and outcome.state != "completed":
        verdict.effects_without_job += 1
        say(f"{name} had its effect and is {outcome.state}")
    extra = len(starts) - outcome.attempts
    if extra <= 0:
        return
    verdict.second_runs += extra
    explained = sum(
        _is_explained(start, following, faults) for start, following in itertools.pairwise(starts)
    )
    verdict.second_runs_explained += min(extra, explained)
    if explained < extra:
        runs = ", ".join(f"{start.at:.1f} in {start.pid}" for start in starts)
        say(f"{name} was started {len(starts)} times for {outcome.attempts} attempts: {runs}")


def _is_explained(start: Start, following: Start, faults: list[Fault]) -> bool:
    """Whether a fault allows the job to be started again although nothing was recorded.

    That is so when the process was killed, or frozen for longer than the heartbeat
    time-out, or the broker was flushed, from the start of the run on.
    """
    for fault in faults:
        if fault.ended < start.at - 1 or fault.began > following.at:
            continue
        if following.at - fault.ended > _CONSEQUENCE_SECONDS:
            continue
        if fault.kind in _FLUSHES:
            return True
        if start.is_in(fault.pids):
            is_short_freeze = (
                fault.kind == "freeze worker" and fault.ended - fault.began < SILENCE_SECONDS
            )
            if not is_short_freeze:
                return True
    return False


def _percentile99(figures: list[float]) -> float:
    return sorted(figures)[math.ceil(len(figures) * 0.99) - 1] if figures else 0.0


def _rescues(starts: list[Start], faults: list[Fault], kinds: frozenset[str]) -> list[float]:
    """Return how long a job that was running in a lost process waited for its next start.

    Processes lost within ten seconds of another fault do not count: the bound holds for a
    fleet that can reach its servers and has somebody free to run the job.
    """
    found = []
    for start, following in itertools.pairwise(starts):
        for fault in faults:
            if fault.kind not in kinds or not start.is_in(fault.pids):
                continue
            was_running = start.at <= fault.began and (
                start.ended_at is None or start.ended_at > fault.began
            )
            alone = not any(
                other is not fault
                and other.began < following.at
                and other.ended > fault.began - QUIET_SECONDS
                for other in faults
            )
            if was_running and alone and following.at > fault.began:
                found.append(following.at - fault.began)
    return found


def check_suite(faults: list[Fault], passed: dict[str, list[int]], committed: int) -> list[str]:
    """Return why the run itself proves nothing, if it does not."""
    found = []
    kinds = Counter(fault.kind for fault in faults)
    if len(kinds) < 5:
        found.append(f"only {len(kinds)} kinds of faults took place")
    if not any(fault.pids for fault in faults):
        found.append("no process was killed or frozen")
    found += [
        f"nothing passed the proxy of {name}" for name, counts in passed.items() if 0 in counts
    ]
    if committed < 100:
        found.append(f"only {committed} orders were committed")
    return found
