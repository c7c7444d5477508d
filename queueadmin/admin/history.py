"""Everything that ever happened to one job, as its page shows it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import settings
from ..display import badge, span
from ..models import Attempt, AuditEntry, DeadLetter, Job
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus, JobState, Outcome
from . import stacks

#: A job that retries without end has any number of attempts; the newest matter.
SHOWN = 100
UPCOMING_SHOWN = 5

_VERBS = {
    "reveal": gettext_lazy("%(who)s looked at its masked fields"),
    "erase": gettext_lazy("%(who)s erased its personal data"),
    "edit": gettext_lazy("%(who)s changed %(names)s"),
    "requeue": gettext_lazy("%(who)s requeued it"),
    "close": gettext_lazy("%(who)s marked it permanently failed"),
    "assign": gettext_lazy("%(who)s gave it to %(to)s"),
    "set_urgency": gettext_lazy("%(who)s set its priority to %(to)s"),
    "set_due": gettext_lazy("%(who)s set its due date to %(to)s"),
    "snooze": gettext_lazy("%(who)s snoozed it"),
    "wake": gettext_lazy("%(who)s woke it"),
    "link ticket": gettext_lazy("%(who)s linked the ticket %(to)s"),
    "cancel": gettext_lazy("%(who)s cancelled it"),
    "reschedule": gettext_lazy("%(who)s rescheduled it"),
    "retry": gettext_lazy("%(who)s made it due at once"),
    "annotate": gettext_lazy("%(who)s wrote a note"),
}


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One attempt with its stack in blocks."""

    attempt: Attempt
    stack: stacks.Stack
    is_open: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, or will."""

    at: datetime
    mark: SafeString | str
    text: str
    detail: str = ""
    is_future: bool = False


def attempts_of(job: Job) -> list[ShownAttempt]:
    """Return the newest attempts, newest first, the last failure opened."""
    rows = list(job.attempt_set.order_by("-id")[:SHOWN])
    first_failed = next((row.pk for row in rows if row.traceback), None)
    return [
        ShownAttempt(row, stacks.read(row.traceback), is_open=row.pk == first_failed)
        for row in rows
    ]


def upcoming_of(job: Job) -> list[datetime]:
    """Return when the coming attempts are due by the policy of the job's queue."""
    policy = settings.policy(job.queue)
    waits = policy.schedule_ms() if policy is not None else []
    due = job.upcoming(waits)
    if job.max_attempts is not None:
        due = due[: max(job.max_attempts - job.attempts, 1)]
    return due


def timeline_of(
    job: Job,
    attempts: list[ShownAttempt],
    dead_letter: DeadLetter | None,
    upcoming: list[datetime],
) -> list[Event]:
    """Return the events of a job in their order, those to come at the end."""
    events = [Event(job.enqueued_at, "", _("placed on %(queue)s") % {"queue": job.queue})]
    events += [_attempt_event(shown.attempt) for shown in attempts]
    events += [_audit_event(entry) for entry in _entries(job, dead_letter)]
    if dead_letter is not None:
        events.append(
            Event(
                dead_letter.died_at,
                badge(JobState.DEAD),
                _("became a dead letter"),
                str(dead_letter.get_died_by_display()),
            )
        )
        if dead_letter.recovered_at is not None:
            events.append(
                Event(
                    dead_letter.recovered_at,
                    badge(DeadLetterStatus.RECOVERED),
                    _("the requeued run completed"),
                )
            )
    if job.state == JobState.CANCELLED and job.finished_at is not None:
        events.append(Event(job.finished_at, badge(JobState.CANCELLED), ""))
    events.sort(key=lambda event: event.at)
    numbered = enumerate(upcoming[:UPCOMING_SHOWN], start=job.attempts + 1)
    return events + [
        Event(
            moment,
            badge(JobState.SCHEDULED),
            _("attempt %(number)d") % {"number": number},
            _("if the one before fails") if number > job.attempts + 1 else "",
            is_future=True,
        )
        for number, moment in numbered
    ]


def _attempt_event(attempt: Attempt) -> Event:
    """Say how an attempt went, at the time it ended."""
    facts = {"number": attempt.number, "took": span(attempt.duration)}
    known = attempt.outcome in Outcome.values
    mark = badge(_AS_STATE.get(Outcome(attempt.outcome), attempt.outcome) if known else "")
    text = _("attempt %(number)d ran %(took)s") % facts
    if attempt.delay_ms is not None:
        text += _(", again after %(wait)s") % {
            "wait": span(timedelta(milliseconds=attempt.delay_ms))
        }
    return Event(attempt.started_at + attempt.duration, mark, text, attempt.error_class)


#: The badge of an attempt says what became of the job.
_AS_STATE = {
    Outcome.COMPLETED: JobState.COMPLETED,
    Outcome.RETRYING: JobState.RETRYING,
    Outcome.DEAD: JobState.DEAD,
    Outcome.CANCELLED: JobState.CANCELLED,
    Outcome.RETURNED: Outcome.RETURNED,
}


def _entries(job: Job, dead_letter: DeadLetter | None) -> list[AuditEntry]:
    """Return what people did to a job and its dead letter, newest first."""
    which = Q(target_type="job", target_id=job.pk)
    if dead_letter is not None:
        which |= Q(target_type="dead letter", target_id=str(dead_letter.pk))
    return list(AuditEntry.objects.filter(which).order_by("-at")[:SHOWN])


def _audit_event(entry: AuditEntry) -> Event:
    """Say who did what and why."""
    detail = entry.detail if isinstance(entry.detail, dict) else {}
    to = str(detail.get("to") or _("nobody"))
    if entry.verb == "set_urgency" and to.upper() in Urgency.names:
        to = str(Urgency[to.upper()].label)
    sentence = _VERBS.get(entry.verb)
    changes = detail.get("changes")
    names = ", ".join(
        str(change.get("name"))
        for change in (changes if isinstance(changes, list) else [])
        if isinstance(change, dict)
    )
    facts = {"who": entry.user_name, "to": to, "names": names}
    text = str(sentence) % facts if sentence else f"{entry.user_name}: {entry.verb}"
    mark = {
        "requeue": badge(DeadLetterStatus.REQUEUED),
        "close": badge(DeadLetterStatus.PERMANENTLY_FAILED),
    }.get(entry.verb, "")
    return Event(entry.at, mark, text, entry.reason)
