"""What recipients want: topics by channel, and quiet hours."""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta

from django.db import models, transaction
from django.utils import timezone

from queueadmin.models.job import subject_key

from .models import Channel, Event, Refusal, Topic
from .recipients import Sleeper


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


def quiet_until(event: Event, recipient: object) -> datetime | None:
    """Return when the recipient's quiet hours end, if they are now and the news can wait.

    Asked twice: when the event happens, so that the job is scheduled for then, and again
    right before each call of a provider, for a message may be retried, paused or late, or
    the recipient may have changed the hours meanwhile. What is urgent never waits.
    """
    if event.is_urgent or not isinstance(recipient, Sleeper):
        return None
    hours = recipient.notification_quiet_hours()
    if hours is None:
        return None
    return end_of_quiet(hours, timezone.localtime(timezone=timezone.get_default_timezone()))


def end_of_quiet(hours: tuple[time, time], now: datetime) -> datetime | None:
    """Return when quiet hours end that are on at `now`, which is local; None outside of them.

    Hours that end before they begin go over midnight; equal ones are none. They follow the
    clock on the wall: a night in which it is moved is an hour longer or shorter. Where it
    shows the end twice, the first of them that is still to come counts; where it skips the
    end, the end comes as long after the jump as it stands after the skipped hour's beginning.
    """
    begin, end = hours
    clock = now.time()
    is_quiet = begin <= clock < end if begin <= end else clock >= begin or clock < end
    if not is_quiet:
        return None
    day = now.date() if clock < end else now.date() + timedelta(days=1)
    until = datetime.combine(day, end, tzinfo=now.tzinfo)
    # Compared in UTC: two times of one zone are compared by what the clock shows.
    if until.astimezone(UTC) <= now.astimezone(UTC):
        until = until.replace(fold=1)
    return until.astimezone(UTC)
