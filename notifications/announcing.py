"""Plans who is told about an event, once per recipient and channel."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from queueadmin.models.job import subject_key

from . import preferences, recipients
from .actors import send_email, send_sms, send_whatsapp
from .delivery import SOON
from .models import Channel, Delivery, Event
from .recipients import Recipient

SENDERS = {
    Channel.WHATSAPP: send_whatsapp,
    Channel.EMAIL: send_email,
    Channel.SMS: send_sms,
}


def announce(
    event: Event,
    *,
    subject: models.Model,
    recipient: models.Model,
    channels: Iterable[Channel],
    context: Mapping[str, Any],
    occasion: str = "",
) -> list[Delivery]:
    """Create and enqueue a delivery for each channel, in the caller's transaction.

    What was announced before is left alone, so a repeated run tells nobody twice.

    Args:
        event: what happened.
        subject: the business object it happened to; jobs are found under it.
        recipient: who is told; a saved model that is a `Recipient`.
        channels: the ways to tell it; the recipient's refusals are left out.
        context: values for the templates, JSON-ready.
        occasion: tells apart what may be told again about the same subject.

    Returns:
        The deliveries that are new.
    """
    person: object = recipient
    if not isinstance(person, Recipient):
        raise TypeError(f"{recipient!r} has no notification address")
    planned = [
        Delivery(
            event=event,
            subject=subject_key(subject),
            recipient=subject_key(recipient),
            recipient_name=person.notification_name()[:200],
            channel=channel,
            occasion=occasion,
            language=recipients.language_of(person),
            context=dict(context),
        )
        for channel in preferences.wanted(recipient, event.topic, channels)
    ]
    quiet_until = preferences.quiet_until(event, person)
    # The queue wants a delay above 0.
    delay = max(quiet_until - timezone.now(), SOON) if quiet_until else None
    with transaction.atomic():
        Delivery.objects.bulk_create(planned, ignore_conflicts=True)
        ours = [delivery.reference for delivery in planned]
        created = list(Delivery.objects.filter(reference__in=ours).order_by("pk"))
        for delivery in created:
            SENDERS[Channel(delivery.channel)].send_with_options(
                args=(delivery.pk,), subject=delivery.subject, delay=delay
            )
    return created
