"""Template words of the console."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.contrib.admin.utils import quote
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from .. import display
from ..models import Job
from ..models.dead_letter import Urgency
from ..states import (
    DeadLetterStatus,
    GroupStatus,
    ItemState,
    JobState,
    OperationStatus,
    Outcome,
)
from ..statistics import Flow

register = template.Library()

register.filter("plain", display.plain, is_safe=False)
register.filter("name", display.name_tag, is_safe=False)
register.filter("excerpt", display.excerpt, is_safe=False)
register.filter("span", display.span)

#: The console's pages as the side bar names them: what is asked first comes first.
_ORDER = (
    "Overview",
    "Queue",
    "Worker",
    "Job",
    "DeadLetter",
    "FailureGroup",
    "RequeueOperation",
    "Attempt",
    "Alert",
    "ScheduleControl",
    "RecoveryRun",
    "AssignmentRule",
    "AuditEntry",
)


@register.filter
def console_first(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the admin's applications with the console above the others, in its own order."""
    ours = [
        {**app, "models": sorted(app["models"], key=_place)}
        for app in apps
        if app["app_label"] == "queueadmin"
    ]
    return [*ours, *(app for app in apps if app["app_label"] != "queueadmin")]


def _place(entry: dict[str, Any]) -> int:
    name = entry["object_name"]
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


@register.filter
def state_badge(state: str) -> SafeString:
    """Show a job's state."""
    return display.badge(_member(JobState, state))


@register.simple_tag
def cancelling_badge() -> SafeString:
    """Show that a cancel was requested and is not certain yet."""
    return display.badge("cancelling", display.CANCELLING)


@register.filter
def status_badge(status: str) -> SafeString:
    """Show a dead letter's status."""
    return display.badge(_member(DeadLetterStatus, status))


@register.filter
def urgency_badge(urgency: int) -> SafeString:
    """Show how soon a dead letter should be looked at."""
    return display.badge(_member(Urgency, urgency))


@register.filter
def outcome_badge(outcome: str) -> SafeString:
    """Show how an attempt ended."""
    return display.badge(_member(Outcome, outcome))


@register.filter
def group_badge(status: str) -> SafeString:
    """Show a failure group's status."""
    return display.badge(_member(GroupStatus, status))


@register.filter
def operation_badge(status: str) -> SafeString:
    """Show how far a requeue operation is."""
    return display.badge(_member(OperationStatus, status))


@register.filter
def item_badge(state: str) -> SafeString:
    """Show what became of one job of a requeue operation."""
    return display.badge(_member(ItemState, state))


@register.filter
def moment(when: datetime | None) -> SafeString | str:
    """Show a time in relative words with the exact one on hover."""
    return display.time_tag(when)


@register.filter
def clock_time(when: datetime | None) -> SafeString | str:
    """Show a time exactly."""
    return display.time_tag(when, display.exact(when) if when else None)


@register.filter
def milliseconds(number: float) -> str:
    """Show a number of milliseconds as a length of time."""
    return display.span(timedelta(milliseconds=number))


@register.filter
def admin_quote(key: str | int) -> Any:
    """Return a primary key as admin addresses carry it."""
    return quote(key)


def _member(choices: Any, value: Any) -> Any:
    """Return the member for a stored value, or the value where it is unknown."""
    return choices(value) if value in choices.values else value


@register.filter
def badge_of(kind: str, word: object = None) -> SafeString:
    """Show one of the badges that are no state, with another word if one is given."""
    return display.badge(kind, word if word is not None else WORDS.get(kind, kind))


@register.filter
def state_label(state: str) -> Any:
    """Return a job state's word."""
    return getattr(_member(JobState, state), "label", state)


@register.filter
def thousands(number: int) -> str:
    """Show a number with its thousands apart."""
    return f"{number:,}"


@register.filter
def age(when: datetime | None) -> SafeString | str:
    """Show how long ago something was, in one unit."""
    return display.age_tag(when)


@register.filter
def due(when: datetime) -> SafeString:
    """Show how soon something is due, or how late it is."""
    return display.due_tag(when)


@register.filter
def rate(number: float) -> str:
    """Show a rate with as many digits as it needs."""
    if not number:
        return "0"
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")


@register.filter
def percent(share: float | None) -> str:
    """Show a share in per cent; a dash where there is none."""
    return display.NOTHING if share is None else f"{share:.0f} %"


@register.filter
def waits(flow: Flow) -> str:
    """Show how long jobs waited: half of them, and 95 of 100."""
    return _pair(flow.wait_at(0.5), flow.wait_at(0.95))


@register.filter
def runs(flow: Flow) -> str:
    """Show how long runs took: half of them, and 95 of 100."""
    return _pair(flow.run_at(0.5), flow.run_at(0.95))


@register.filter
def took(job: Job | None) -> str:
    """Show how long a job's last run took."""
    if job is None or job.started_at is None or job.finished_at is None:
        return display.NOTHING
    return display.span(job.finished_at - job.started_at)


def _pair(half: timedelta | None, most: timedelta | None) -> str:
    if half is None or most is None:
        return display.NOTHING
    # Numbers stay with their units where the column is narrow.
    pair = (
        display.span(length, is_coarse=True).replace(" ", "\N{NO-BREAK SPACE}")
        for length in (half, most)
    )
    return " / ".join(pair)


#: Badges that are no state.
WORDS = {
    "paused": gettext_lazy("paused"),
    "limited": gettext_lazy("limited"),
    "done": gettext_lazy("done"),
    "failed": gettext_lazy("lost"),
}
