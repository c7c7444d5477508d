"""Template words of the console."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.contrib.admin.utils import quote
from django.utils.safestring import SafeString

from .. import display
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus, JobState, Outcome

register = template.Library()

register.filter("plain", display.plain, is_safe=False)
register.filter("excerpt", display.excerpt, is_safe=False)
register.filter("span", display.span)


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
