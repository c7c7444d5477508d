"""Recurring jobs: each occasion is enqueued once, however many schedulers run.

APScheduler knows what is due, django-apscheduler keeps its table. The schedules
themselves are code (QUEUEADMIN["SCHEDULES"]); what is stored follows them.
"""

import logging
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from queue import Empty, SimpleQueue
from typing import Any

import dramatiq
from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job as StoredSchedule
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from django.db import DatabaseError, InterfaceError, close_old_connections, transaction
from django.db.models import Max
from django.utils import timezone
from django_apscheduler.jobstores import DjangoJobStore
from django_apscheduler.models import DjangoJobExecution
from dramatiq.errors import ActorNotFound

from . import clock
from .conf import settings
from .exceptions import ConfigurationError
from .models import ScheduleControl, ScheduleOccasion
from .schedules import Schedule

logger = logging.getLogger(__name__)

#: Seconds until what failed, for instance because the database is away, is tried again.
RETRY_SECONDS = 2.0
#: Occasions are due by the clocks of hosts; none is this far off.
KEEP_OCCASIONS = timedelta(days=7)
_NAMESPACE = uuid.UUID("7e9f5c0e-2f0b-4f0e-9c55-0f6a4a6d2c11")


def job_id(name: str, due_at: datetime) -> str:
    """Return the id of the job of one occasion; the same wherever it is asked for."""
    return str(uuid.uuid5(_NAMESPACE, f"{name} {due_at.timestamp():.6f}"))


def enqueue(name: str, due_at: datetime, *, is_asked_for: bool = False) -> bool:
    """Enqueue the job of one occasion unless somebody has done so before.

    The occasions of a paused schedule are left out, and not made up for later.

    Args:
        name: a name in QUEUEADMIN["SCHEDULES"].
        due_at: when the occasion was due.
        is_asked_for: a person wants it, also while the schedule is paused.

    Returns:
        Whether this call enqueued it.

    Raises:
        ConfigurationError: the schedule or its actor does not exist here.
    """
    schedule = find(name)
    actor = _actor(name, schedule)
    paused = ScheduleControl.objects.filter(name=name, paused_at__isnull=False)
    if not is_asked_for and paused.exists():
        return False
    message = actor.message_with_options(args=schedule.args, kwargs=dict(schedule.kwargs))
    message = message.copy(message_id=job_id(name, due_at))
    with transaction.atomic():
        _, is_first = ScheduleOccasion.objects.get_or_create(
            schedule=name, due_at=due_at, defaults={"job_id": message.message_id}
        )
        if is_first:
            actor.broker.enqueue(message)
    return is_first


def run_now(name: str) -> None:
    """Enqueue the job of a schedule at once, as an occasion of its own."""
    enqueue(name, clock.now())


def find(name: str) -> Schedule:
    """Return a schedule of the settings.

    Raises:
        ConfigurationError: there is none of this name.
    """
    try:
        return settings.SCHEDULES[name]
    except KeyError:
        raise ConfigurationError(
            f"No schedule is named {name!r}; known: {', '.join(settings.SCHEDULES)}."
        ) from None


def require_valid(schedules: Mapping[str, Schedule]) -> None:
    """Raise ConfigurationError when a schedule names an actor that nobody declared."""
    for name, schedule in schedules.items():
        _actor(name, schedule)


def prune(*, older_than: timedelta = KEEP_OCCASIONS) -> int:
    """Delete the records of old occasions and return how many; the last of each stays."""
    before = clock.now() - older_than
    last = ScheduleOccasion.objects.values("schedule").annotate(last=Max("id")).values("last")
    old = ScheduleOccasion.objects.filter(due_at__lt=before).exclude(id__in=last)
    deleted, _ = old.delete()
    DjangoJobExecution.objects.filter(run_time__lt=before).delete()
    return deleted


def _actor(name: str, schedule: Schedule) -> dramatiq.Actor[..., Any]:
    broker = dramatiq.get_broker()
    try:
        actor: dramatiq.Actor[..., Any] = broker.get_actor(schedule.actor)
    except ActorNotFound:
        near = get_close_matches(schedule.actor, broker.get_declared_actors(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(
            f"The schedule {name!r} names the actor {schedule.actor!r}, which nobody "
            f"declared.{hint}"
        ) from None
    return actor


class _Store(DjangoJobStore):  # type: ignore[misc]  # the package has no types
    """Keeps an occasion due until its job is in the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: set[str] = set()

    def update_job(self, job: StoredSchedule) -> None:
        """Store the next occasion, unless the present one could not be enqueued."""
        if job.id not in self.failed:
            super().update_job(job)


class _Executor(BaseExecutor):  # type: ignore[misc]  # the package has no types
    """Enqueues in the scheduler's own thread, before the store moves on.

    APScheduler's own executors do not tell the job when it was due, and lose an occasion
    when the process dies between the store's update and the job's run.
    """

    def __init__(self, store: _Store) -> None:
        super().__init__()
        self._store = store

    def _do_submit_job(self, job: StoredSchedule, run_times: list[datetime]) -> None:
        self._store.failed.add(job.id)
        for due_at in run_times:
            if enqueue(job.id, due_at):
                logger.info("Enqueued schedule=%s due=%s", job.id, due_at.isoformat())
        self._store.failed.discard(job.id)
        self._run_job_success(
            job.id,
            [
                JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, job._jobstore_alias, due_at)
                for due_at in run_times
            ],
        )


class Scheduler(BaseScheduler):  # type: ignore[misc]  # the package has no types
    """Runs in the calling thread until `request_stop`, through outages of the database.

    Args:
        schedules: what recurs, by name.
    """

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        # SimpleQueue.put may be called by a signal handler at any moment.
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        self._schedules = schedules
        self._store = _Store()
        super().__init__(
            timezone=timezone.get_default_timezone(),
            jobstores={"default": self._store},
            executors={"default": _Executor(self._store)},
            # After an outage one job makes up for all missed occasions, however late.
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
            jobstore_retry_interval=RETRY_SECONDS,
        )

    def request_stop(self, signum: int = 0, frame: object = None) -> None:
        """Ask for the end; fit to be a signal handler."""
        self._stopping = True
        self._wakeups.put(None)

    def wakeup(self) -> None:
        """Look again at what is due."""
        self._wakeups.put(None)

    def shutdown(self, wait: bool = True) -> None:
        """End the scheduler; `run` returns."""
        super().shutdown(wait)
        self._wakeups.put(None)

    def run(self) -> None:
        """Enqueue what is due until the end is asked for."""
        self.start(paused=True)
        is_synchronised = False
        while not self._stopping:
            wait: float | None = RETRY_SECONDS
            try:
                close_old_connections()
                if not is_synchronised:
                    self._synchronise()
                    is_synchronised = True
                    self.resume()
                wait = self._process_jobs()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The database does not answer, trying again: %s", error)
            except JobLookupError as error:
                logger.warning("Another scheduler removed a schedule meanwhile: %s", error)
            self._sleep(wait)
        if self.state != STATE_STOPPED:
            self.shutdown()

    def _process_jobs(self) -> float | None:
        self._store.failed.clear()
        wait: float | None = super()._process_jobs()
        # What failed is still due; without a pause it would be tried in a busy loop.
        return RETRY_SECONDS if self._store.failed else wait

    def _synchronise(self) -> None:
        """Make the stored schedules those of the code; times already due are kept."""
        stored = {job.id: job for job in self._store.get_all_jobs()}
        for unknown in stored.keys() - self._schedules.keys():
            self.remove_job(unknown)
            logger.info("Removed schedule=%s, which the settings no longer have", unknown)
        for name, schedule in self._schedules.items():
            # Another scheduler may be about to fire what is due now: an unchanged schedule
            # keeps its next occasion, or one would be skipped at each start.
            if name in stored and stored[name].name == self._label(schedule):
                continue
            self.add_job(
                run_now,
                schedule.trigger(self.timezone),
                args=[name],
                id=name,
                name=self._label(schedule),
                replace_existing=True,
            )

    def _label(self, schedule: Schedule) -> str:
        return f"{schedule}, {self.timezone}"

    def _sleep(self, seconds: float | None) -> None:
        try:
            self._wakeups.get(timeout=seconds)
        except Empty:
            return
        # One look answers all that asked for one meanwhile.
        while not self._wakeups.empty():
            self._wakeups.get_nowait()
