"""What recipients want: topics by channel, and quiet hours."""

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from typing import TypedDict

from django.db import models, transaction
from django.utils import timezone

from queueadmin.models.job import subject_key

from .models import Channel, Event, Refusal, Topic
from .recipients import Sleeper


class Wait(TypedDict, total=False):
    """Options of a job that waits."""

    delay: timedelta


def wanted(recipient: models.Model, topic: Topic, channels: Iterable[Channel]) -> list[Channel]:
    """Return the channels, each once, by which the recipient wants this topic."""
    refused = set(
        Refusal.objects.filter(recipient=subject_key(recipient), topic=topic).values_list(
            "channel", flat=True
        )
    )
    return [channel for channel in dict.fromkeys(channels) if channel not in refused]


def refusals(recipient: models.Model) -> set[tuple[Topic, Channel]]:
    """Return what the recipient does not want."""
    rows = Refusal.objects.filter(recipient=subject_key(recipient)).values_list("topic", "channel")
    return {(Topic(topic), Channel(channel)) for topic, channel in rows}


def refuse(recipient: models.Model, unwanted: Iterable[tuple[Topic, Channel]]) -> None:
    """Replace what the recipient does not want."""
    key = subject_key(recipient)
    with transaction.atomic():
        Refusal.objects.filter(recipient=key).delete()
        Refusal.objects.bulk_create(
            (
                Refusal(recipient=key, topic=topic, channel=channel)
                for topic, channel in sorted(set(unwanted))
            ),
            ignore_conflicts=True,  # the same form sent twice at once
        )


def wait(event: Event, recipient: object) -> Wait:
    """Return how long news must wait for the end of the recipient's quiet hours.

    It is decided when the event happens. A message that is retried, or whose queue was
    behind, may still arrive in quiet hours; what is urgent never waits.
    """
    if event.is_urgent or not isinstance(recipient, Sleeper):
        return {}
    hours = recipient.notification_quiet_hours()
    if hours is None:
        return {}
    left = quiet_for(hours, timezone.localtime())
    return {"delay": left} if left else {}


def quiet_for(hours: tuple[time, time], now: datetime) -> timedelta:
    """Return how long quiet hours go on at `now`, which is local; zero outside of them.

    Hours that end before they begin go over midnight; equal ones are none.
    """
    begin, end = hours
    clock = now.time()
    is_quiet = begin <= clock < end if begin <= end else clock >= begin or clock < end
    if not is_quiet:
        return timedelta(0)
    until = datetime.combine(now.date(), end, tzinfo=now.tzinfo)
    if until <= now:
        until = datetime.combine(now.date() + timedelta(days=1), end, tzinfo=now.tzinfo)
    return until - now
