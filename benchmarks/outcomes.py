"""What recording an outcome costs, and when it stands in the ledger: completed, retry, dead letter.

The cost is that of the recorder's thread under load: the commit of many outcomes at a time,
and the settling of their messages, divided by their number. The delay is that of single jobs
on idle workers, from the moment the actor has returned or raised until another connection
sees the committed outcome.
"""

import random
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from .fleet import Fleet, message, send_many, wait_until
from .results import Row, row
from .rivals import PROCESSES, THREADS
from .stand import Stand

if TYPE_CHECKING:
    from queueadmin.ledger import Ending

#: Of each kind: what it is called, the queue whose actor ends so, and the state it leads to.
_KINDS = (
    ("completed", "open", "completed"),
    ("a retry", "retrying", "retrying"),
    ("a dead letter", "dying", "dead"),
)
_QUEUE = "open"
_BATCH = 100
_LOOK_SECONDS = 0.000_5


def measure(stand: Stand, *, quick: bool) -> list[Row]:
    """Record outcomes of each kind in turns, then let single jobs end on idle workers."""
    batches, jobs, rounds = (3, 20, 2) if quick else (10, 60, 5)
    costs: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, _queue, state in _KINDS:
            costs.setdefault(name, []).append(_cost(stand, state, batches) * 1_000)
    delays: dict[str, list[float]] = {}
    with stand.fleet(processes=PROCESSES, threads=THREADS, job_log="INFO") as fleet:
        time.sleep(2)  # until they are idle
        number = 0
        for _ in range(rounds):
            for name, queue, state in _KINDS:
                found = [_delay(stand, fleet, queue, state, number + i) for i in range(jobs)]
                number += jobs
                delays.setdefault(name, []).append(quantiles(found, n=20)[-1] * 1_000)
    rows = [row("queueadmin", f"ms of the recorder, {name}", of) for name, of in costs.items()]
    unit = "ms from the actor's end to the commit, 95th percentile"
    return rows + [row("queueadmin", f"{unit}, {name}", of) for name, of in delays.items()]


def _cost(stand: Stand, state: str, batches: int) -> float:
    """Return the seconds that one outcome of many takes."""
    from queueadmin import ledger

    transport = stand.broker.transport
    send_many(stand.broker, _QUEUE, range(_BATCH * batches))
    held = transport.fetch(_QUEUE, _BATCH * batches)
    while len(held) < _BATCH * batches:
        held += transport.fetch(_QUEUE, _BATCH)
    taken = 0.0
    for start in range(0, len(held), _BATCH):
        names = [parcel_id for parcel_id, _data in held[start : start + _BATCH]]
        endings = list(_endings(names, state))
        begun = time.perf_counter()
        committed = ledger.commit(endings)
        transport.settle({_QUEUE: names}, committed.parcels)
        taken += time.perf_counter() - begun
        if len(committed.accepted) != len(names):
            raise RuntimeError(f"Only {len(committed.accepted)} of {len(names)} were accepted.")
    return taken / len(held)


def _endings(names: list[str], state: str) -> "Iterator[Ending]":
    from queueadmin import clock
    from queueadmin.ledger import Ending
    from queueadmin.states import DeathCause, JobState, Outcome

    error = _error() if state != "completed" else {}
    for name in names:
        job, _, dispatch = name.rpartition(":")
        at = clock.now()
        yield Ending(
            job=job,
            dispatch=int(dispatch),
            state=JobState(state),
            outcome=Outcome(state),
            attempt=1,
            started_at=at - timedelta(milliseconds=random.uniform(1, 50)),  # noqa: S311
            finished_at=at,
            duration_ms=random.uniform(1, 50),  # noqa: S311
            due_at=at + timedelta(days=1) if state == "retrying" else None,
            delay_ms=86_400_000 if state == "retrying" else None,
            cause=DeathCause.ATTEMPTS_EXHAUSTED if state == "dead" else None,
            queue=_QUEUE,
            actor=f"benchmark.{_QUEUE}",
            worker="benchmark:1",
            **error,
        )


def _error() -> dict[str, Any]:
    """Return what a failure leaves behind, with a traceback of usual depth."""

    def deep(left: int) -> None:
        if not left:
            raise ConnectionError(f"no answer from provider {random.randrange(10)}")  # noqa: S311
        deep(left - 1)

    try:
        deep(12)
    except ConnectionError as error:
        lines = "".join(traceback.format_exception(error))
        return {"error_class": "ConnectionError", "error_message": str(error), "traceback": lines}
    raise AssertionError("deep() returned.")


def _delay(stand: Stand, fleet: Fleet, queue: str, state: str, number: int) -> float:
    """Return the seconds from the end of a job's actor to the commit of its outcome."""
    from queueadmin.ledger import sql

    time.sleep(random.uniform(0.03, 0.1))  # noqa: S311  # in step with no poll
    sent = message(queue, number)
    stand.broker.enqueue(sent)
    # By a short statement that is planned once: what looks so often must not hold up what it
    # waits for, nor add much to it.
    with sql.prepared_cursor() as cursor:

        def has_come() -> bool:
            cursor.execute("SELECT state FROM queueadmin_job WHERE id = %s", [sent.message_id])
            return bool(cursor.fetchone()[0] == state)

        wait_until(has_come, 30, every=_LOOK_SECONDS)
    seen = time.time()
    last = fleet.journal.read_text().splitlines()[-1].split()
    if int(last[0]) != number:
        raise RuntimeError(f"The journal ends with job {last[0]}, not {number}.")
    return seen - float(last[2])
