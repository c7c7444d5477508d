"""What holds for each queue now: its policy, and what staff have set over it.

Held in the process's memory and read again twice a second by a thread of its own, so
that a job's start costs no look at the database.
"""

from dataclasses import dataclass

from . import clock
from .conf import settings
from .policies import Rate

#: How often a worker process reads what staff have set, in seconds.
REFRESH_SECONDS = 0.5
#: Within which every worker process has read a change, and what ran before shows as active.
SEEN_SECONDS = 3.0
#: The lease of whoever moves jobs from one message server to another.
RELOCATION = "relocation"


@dataclass(frozen=True, slots=True)
class Control:
    """The effective limits of a queue."""

    is_paused: bool = False
    #: Of the circuit breaker; see `queueadmin.models.Queue.breaker_stage`.
    stage: str = "closed:"
    concurrency: int | None = None
    rate: Rate | None = None

    @property
    def is_limited(self) -> bool:
        """Whether starts have to be asked for."""
        return self.concurrency is not None or self.rate is not None


class Controls:
    """The controls of all queues, as this process knows them."""

    def __init__(self) -> None:
        # Replaced as a whole by the refresh, so that readers need no lock.
        self._set: dict[str, Control] = {}
        self._by_policy: dict[str, Control] = {}
        #: False until the first refresh: a process that has just started does not know yet
        #: what is paused, and must not fetch.
        self.is_known = False
        #: Whether each job has to be claimed in the ledger before it starts, because its
        #: message may lie in two servers; see `queueadmin.relocating`.
        self.must_claim = False
        #: Raised when that is over: what was fetched until then is claimed all the same.
        self.era = 0
        # Dispatches of jobs that shall not start, or stop; replaced as a whole likewise.
        self._cancelling: dict[str, int] = {}

    def of(self, queue: str) -> Control:
        """Return what holds for the queue."""
        found = self._set.get(queue) or self._by_policy.get(queue)
        if found is None:
            policy = settings.policy(queue)
            found = Control(
                concurrency=policy.concurrency if policy else None,
                rate=policy.rate if policy else None,
            )
            self._by_policy[queue] = found
        return found

    def is_cancelling(self, job: str, dispatch: int) -> bool:
        """Return whether this dispatch, or one before it, is to be cancelled."""
        return dispatch <= self._cancelling.get(job, 0)

    def refresh(self) -> set[str]:
        """Read what staff have set and cancelled; return the queues whose control changed."""
        # Imported here: the broker, which owns the controls, is built before models can be.
        from . import leases
        from .models import Job, Queue

        must_claim = leases.is_held(RELOCATION)
        # In this order: a thread that need not claim any more sees the new era.
        if self.must_claim and not must_claim:
            self.era += 1
        self.must_claim = must_claim
        self._cancelling = dict(Job.objects.cancelling().values_list("pk", "dispatch"))
        before, at = self._set, clock.now()
        found = {}
        for row in Queue.objects.all():
            policy = settings.policy(row.name)
            rate = policy.rate if policy else None
            if row.rate_limit and row.rate_window_ms:
                rate = Rate(row.rate_limit, row.rate_window_ms)
            concurrency = row.concurrency or (policy.concurrency if policy else None)
            breaker = policy.breaker if policy else None
            if breaker and row.breaker_state == Queue.Breaker.PROBING:
                # One job of the whole fleet; if nobody has judged it, another one later.
                concurrency, rate = 1, Rate(1, round(breaker.probe_every * 1000))
            is_open = breaker is not None and row.breaker_state == Queue.Breaker.OPEN
            found[row.name] = Control(
                is_paused=is_open or row.is_paused(at),
                stage=row.breaker_stage,
                concurrency=concurrency,
                rate=rate,
            )
        self._set = found
        self.is_known = True
        return {
            queue for queue in found.keys() | before.keys() if found.get(queue) != before.get(queue)
        }
