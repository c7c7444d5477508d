"""Use cases on schedules: pause, resume, run now; and when each ran and will run."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _
from django_apscheduler.models import DjangoJob

from . import audit, scheduling
from .clock import now
from .conf import settings
from .models import Job, ScheduleControl, ScheduleOccasion
from .schedules import Schedule

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TARGET = "schedule"
#: A scheduler is silent when an occasion is overdue by more than this.
SILENT_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One schedule: when it runs, when it ran last and how that went."""

    name: str
    schedule: Schedule
    words: str
    next_at: datetime | None
    last_at: datetime | None
    last_job: Job | None
    control: ScheduleControl | None

    def __str__(self) -> str:
        return self.name

    @property
    def is_paused(self) -> bool:
        """Whether its occasions are left out."""
        return self.control is not None and self.control.paused_at is not None

    @property
    def is_late(self) -> bool:
        """Whether an occasion is overdue, as when no scheduler runs."""
        return self.next_at is not None and now() - self.next_at > SILENT_AFTER


def pause(name: str, *, by: "User | None", reason: str = "") -> bool:
    """Leave out the schedule's occasions from now on; False when it was paused already.

    Raises:
        NotPermitted: `by` lacks the permission `pause_schedule`.
    """
    audit.require(by, "pause_schedule")
    with transaction.atomic():
        ScheduleControl.objects.get_or_create(name=name)
        changed = ScheduleControl.objects.filter(name=name, paused_at=None).update(
            paused_at=now(), paused_by=by, pause_reason=reason
        )
        if changed:
            audit.record("pause", TARGET, [name], by=by, reason=reason)
    return bool(changed)


def resume(name: str, *, by: "User | None", reason: str = "") -> bool:
    """Let it run again from its next occasion on; False when it was not paused.

    Raises:
        NotPermitted: `by` lacks the permission `pause_schedule`.
    """
    audit.require(by, "pause_schedule")
    with transaction.atomic():
        changed = ScheduleControl.objects.filter(name=name, paused_at__isnull=False).update(
            paused_at=None, paused_by=None, pause_reason=""
        )
        if changed:
            audit.record("resume", TARGET, [name], by=by, reason=reason)
    return bool(changed)


def run_now(name: str, *, by: "User | None", reason: str = "") -> str:
    """Enqueue the schedule's job at once, also while it is paused; return the job's id.

    Raises:
        NotPermitted: `by` lacks the permission `run_schedule`.
        ConfigurationError: there is no such schedule, or no such actor.
    """
    audit.require(by, "run_schedule")
    due_at = now()
    with transaction.atomic():
        scheduling.enqueue(name, due_at, is_asked_for=True)
        job = scheduling.job_id(name, due_at)
        audit.record("run now", TARGET, [name], by=by, reason=reason, job=job)
    return job


def require(name: str) -> None:
    """Raise ConfigurationError where there is no such schedule, or no such actor."""
    scheduling.require_valid({name: scheduling.find(name)})


def listed() -> list[Recurrence]:
    """Return every schedule of the settings, in five queries at most."""
    names = list(settings.SCHEDULES)
    upcoming = dict(DjangoJob.objects.filter(id__in=names).values_list("id", "next_run_time"))
    last_ids = (
        ScheduleOccasion.objects.filter(schedule__in=names)
        .order_by()
        .values("schedule")
        .annotate(last=Max("id"))
        .values("last")
    )
    last = {row.schedule: row for row in ScheduleOccasion.objects.filter(id__in=last_ids)}
    jobs = Job.objects.for_list().in_bulk([row.job_id for row in last.values()])
    controls = ScheduleControl.objects.select_related("paused_by").in_bulk(names)
    return [
        Recurrence(
            name=name,
            schedule=schedule,
            words=in_words(schedule),
            next_at=upcoming.get(name),
            last_at=last[name].due_at if name in last else None,
            last_job=jobs.get(last[name].job_id) if name in last else None,
            control=controls.get(name),
        )
        for name, schedule in settings.SCHEDULES.items()
    ]


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def in_words(schedule: Schedule) -> str:
    """Return when a schedule runs, for people; a crontab line that is not simple as it is."""
    if schedule.every is not None:
        seconds = int(schedule.every.total_seconds())
        size, unit = next(pair for pair in _UNITS if seconds % pair[0] == 0)
        return _("every %(number)d %(unit)s") % {"number": seconds // size, "unit": unit}
    parts = str(schedule.cron).split()
    if len(parts) != 5:
        return str(schedule.cron)
    minute, hour, day, month, weekday = parts
    is_simple = month == "*" and minute.isdecimal()
    if is_simple and hour.isdecimal():
        time = f"{int(hour):02d}:{int(minute):02d}"
        if day == weekday == "*":
            return _("every day at %(time)s") % {"time": time}
        if day == "*" and re.fullmatch("[a-z,-]+", weekday):
            return _("%(days)s at %(time)s") % {"days": weekday, "time": time}
        if day.isdecimal() and weekday == "*":
            return _("on day %(day)s of the month at %(time)s") % {"day": day, "time": time}
    if is_simple and hour == day == weekday == "*":
        return _("every hour at minute %(minute)s") % {"minute": minute}
    if hour == day == month == weekday == "*" and (found := re.fullmatch(r"\*/(\d+)", minute)):
        return _("every %(number)d %(unit)s") % {"number": int(found[1]), "unit": "min"}
    return str(schedule.cron)
