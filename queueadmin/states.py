"""The states of jobs and dead letters, and which may follow which."""

from typing import ClassVar

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class JobState(TextChoices):
    """Where a job is."""

    SCHEDULED = "scheduled", _("scheduled")  # due later, in the ledger only
    WAITING = "waiting", _("waiting")  # due; in the broker or on its way there
    ACTIVE = "active", _("active")  # seen running for more than a moment
    RETRYING = "retrying", _("retrying")  # failed, due again later
    COMPLETED = "completed", _("completed")
    DEAD = "dead", _("dead")  # failed for good; has a dead letter
    CANCELLED = "cancelled", _("cancelled")  # certain never to run (again)


class DeadLetterStatus(TextChoices):
    """How far staff are with a permanent failure."""

    PENDING = "pending", _("pending")  # needs a decision
    REQUEUED = "requeued", _("requeued")  # runs again; not known yet how it ends
    RECOVERED = "recovered", _("recovered")  # the requeued run completed
    PERMANENTLY_FAILED = "permanently_failed", _("permanently failed")  # closed by staff


class DeathCause(TextChoices):
    """Why a job failed for good."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted", _("attempts exhausted")
    REJECTED = "rejected", _("rejected")  # an error that no retry can mend
    EXPIRED = "expired", _("expired")  # older than its max_age
    UNKNOWN_ACTOR = "unknown_actor", _("unknown actor")
    UNDECODABLE = "undecodable", _("undecodable")
    WORKER_CRASHED = "worker_crashed", _("worker crashed")
    TIME_LIMIT = "time_limit", _("time limit")


class GroupStatus(TextChoices):
    """How far staff are with a trouble that many dead letters share."""

    OPEN = "open", _("open")
    REGRESSED = "regressed", _("regressed")  # failed again after somebody had resolved it
    SNOOZED = "snoozed", _("snoozed")  # known, and left alone for a while
    RESOLVED = "resolved", _("resolved")


class OperationStatus(TextChoices):
    """How far a guarded requeue is."""

    SCHEDULED = "scheduled", _("scheduled")  # starts by itself at its time
    CANARY = "canary", _("canary")  # the first few run; the rest waits for how they end
    RUNNING = "running", _("running")
    PAUSED = "paused", _("paused")  # by a person
    STOPPED = "stopped", _("stopped")  # by itself: too many failed again
    ABORTED = "aborted", _("aborted")
    FINISHED = "finished", _("finished")  # every job has a result


class ItemState(TextChoices):
    """What became of one job of a guarded requeue."""

    WAITING = "waiting", _("waiting for its turn")
    SENT = "sent", _("requeued")  # runs again; not known yet how it ends
    RECOVERED = "recovered", _("recovered")
    FAILED = "failed", _("failed again")
    SKIPPED = "skipped", _("skipped")


class AlertKind(TextChoices):
    """What staff are told about when it begins and when it is over."""

    DEAD_LETTERS = "dead_letters", _("dead letters pile up")
    REGRESSED = "regressed", _("failure group regressed")
    STUCK = "stuck", _("queue stuck")
    PAUSED = "paused", _("queue paused for long")
    UNCONSUMED = "unconsumed", _("queue without worker")
    BREAKER = "breaker", _("breaker opened")
    NO_WORKER = "no_worker", _("no worker alive")
    BROKER = "broker", _("broker in trouble")
    DATABASE = "database", _("database in trouble")
    SCHEDULER = "scheduler", _("scheduler silent")
    FAILURES = "failures", _("unusually many failures")
    RUN_TIME = "run_time", _("unusually long runs")


class MessageState(TextChoices):
    """How far a message about alerts is."""

    WAITING = "waiting", _("waiting to be sent")
    SENT = "sent", _("sent")
    FAILED = "failed", _("given up")


class Outcome(TextChoices):
    """How one attempt ended."""

    COMPLETED = "completed", _("completed")
    RETRYING = "retrying", _("failed, to be retried")
    DEAD = "dead", _("failed for good")
    RETURNED = "returned", _("returned to the queue")  # interrupted; counts no attempt
    CANCELLED = "cancelled", _("cancelled")


class EffectState(TextChoices):
    """How far something is that a job does once."""

    BEGUN = "begun", _("begun")  # by a run that has not said how it ended
    DONE = "done", _("done")


class Priority:
    """Order within a queue; strict, smaller first."""

    HIGH, NORMAL, LOW = 0, 1, 2
    LABELS: ClassVar = {HIGH: _("high"), NORMAL: _("normal"), LOW: _("low")}
    BY_NAME: ClassVar = {"high": HIGH, "normal": NORMAL, "low": LOW}


#: Option of a message: since when no worker could run its job, in milliseconds since 1970.
PARKED = "queueadmin.parked_at"
#: States a worker may take a job out of by recording an outcome.
RUNNABLE = (JobState.WAITING, JobState.ACTIVE)
#: States in which a job is due at a known time.
TIMED = (JobState.SCHEDULED, JobState.RETRYING)
FINISHED = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)
UNFINISHED = (*TIMED, *RUNNABLE)

#: Every allowed change of a job's state; the ledger's conditional updates follow it.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.SCHEDULED: frozenset({JobState.SCHEDULED, JobState.WAITING, JobState.CANCELLED}),
    JobState.WAITING: frozenset(
        {
            JobState.ACTIVE,
            JobState.WAITING,  # returned, or dispatched again
            JobState.SCHEDULED,  # parked
            JobState.RETRYING,
            JobState.COMPLETED,
            JobState.DEAD,
            JobState.CANCELLED,
        }
    ),
    JobState.ACTIVE: frozenset(
        {
            JobState.WAITING,
            JobState.RETRYING,
            JobState.COMPLETED,
            JobState.DEAD,
            JobState.CANCELLED,
        }
    ),
    JobState.RETRYING: frozenset({JobState.RETRYING, JobState.WAITING, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.DEAD: frozenset({JobState.WAITING}),  # requeue of its dead letter
    JobState.CANCELLED: frozenset(),
}
