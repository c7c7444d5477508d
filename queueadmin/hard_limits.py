"""Records jobs whose process had to be ended because nothing else could stop them.

The time limit interrupts Python code; a call that never returns to Python (a socket
without a time-out, a loop in an extension) is not reached by it. The supervisor ends
such a process from outside, and here records the attempt as what it was.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.errors import ActorNotFound
from dramatiq.message import Message
from dramatiq.middleware import TimeLimitExceeded

from . import clock, events, execution, ledger, payloads
from .consumer import Delivery
from .execution import Execution
from .middleware import conclude
from .models import Job
from .retries import PolicyRetries
from .scoreboard import Running

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker


class HardTimeLimitExceeded(TimeLimitExceeded):
    """The job did not end when its time limit interrupted it; its process was ended."""


def record_overrun(
    broker: "LedgerBroker", running: Running, *, seconds: float, worker: str
) -> bool:
    """Record a run of a process that has been ended; return whether it still counted.

    It is decided as any failure is, by message, queue policy and defaults. The actors'
    modules are not loaded in the supervisor, so what only the actor's declaration says
    (`retry_when`, its own backoff) is not known here; its number of attempts is, because
    it was stored with the job.

    Args:
        broker: the broker whose middleware decides.
        running: what the dead process's scoreboard said.
        seconds: how long the run took until its process was dead.
        worker: `host:pid` of the process.
    """
    clock.synchronise()
    jobs = Job.objects.filter(id=running.job, dispatch=running.dispatch)
    job = jobs.first()
    parcels = ledger.parcels_of(jobs)
    if job is None or not parcels:
        return False
    # Not opened: nobody reads its arguments here.
    message: Message[Any] = Message.decode(parcels[0].data)
    if job.max_attempts is not None:
        message = message.copy(options={"max_retries": job.max_attempts - 1})
    delivery = Delivery(message, parcel_id=parcels[0].id, dispatch=running.dispatch)
    run = Execution(
        job=job.id,
        dispatch=running.dispatch,
        attempt=job.attempts + 1,
        queue=job.queue,
        actor=job.actor,
        started_at=clock.now(),
        started=0.0,
        is_sensitive=payloads.is_sensitive(message, broker.actors),
    )
    error = HardTimeLimitExceeded(
        "Still running after its time limit and grace; the worker process was ended."
    )
    execution.enter(run)
    try:
        _decide(broker, delivery, error)
        ending = conclude(broker, delivery, run, error)
    finally:
        execution.leave()
    ending.duration_ms = round(seconds * 1000, 3)
    ending.started_at = ending.finished_at - timedelta(seconds=seconds)
    ending.worker = worker
    committed = ledger.commit([ending])
    broker.push(committed.parcels)
    if committed.accepted:
        events.ended(ending, job.max_attempts)
    return bool(committed.accepted)


def _decide(broker: "LedgerBroker", delivery: Delivery, error: HardTimeLimitExceeded) -> None:
    retries = next(found for found in broker.middleware if isinstance(found, PolicyRetries))
    try:
        retries.after_process_message(broker, delivery, exception=error)
    except ActorNotFound as problem:
        # Whom to tell that the retries are exhausted is an actor; none is loaded here.
        broker.logger.warning("Job %s is dead and nobody is told: %s", delivery.message_id, problem)
