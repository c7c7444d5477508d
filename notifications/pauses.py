"""When providers want a pause, everybody keeps it, not only the message that was told.

A throttled answer leaves a row: for all messages by that provider, or for those to one
number where WhatsApp's pair limit struck. Whoever is about to send looks first, and comes
back later by a job of its own, which costs no attempt. Messages for the same number get
one turn each, as far apart as the pair limit asks; so they do not all come back at once.
"""

from datetime import datetime, timedelta

from django.db import models, transaction
from django.utils import timezone

from .exceptions import DeliveryError, PairThrottled, RetryLater
from .models import Channel, Pause

#: WhatsApp takes one message to the same number every 6 seconds, some more in a burst.
PAIR_SPACING = timedelta(seconds=6)
#: Who is asked first on each channel; SMTP stands in only where SendGrid names no pause.
FIRST_PROVIDER = {Channel.WHATSAPP: "whatsapp", Channel.EMAIL: "sendgrid", Channel.SMS: "sms"}


def note(error: DeliveryError, *, address: str) -> None:
    """Remember a pause that a provider has just asked for."""
    if not isinstance(error, RetryLater) or not error.provider:
        return
    until = timezone.now() + timedelta(milliseconds=error.delay_ms)
    whom = address if isinstance(error, PairThrottled) else ""
    with transaction.atomic():
        pause, is_new = Pause.objects.get_or_create(
            provider=error.provider, address=whom, defaults={"until": until}
        )
        if not is_new:
            Pause.objects.filter(pk=pause.pk, until__lt=until).update(until=until)


def turn(channel: Channel, address: str, *, in_turn: bool) -> datetime | None:
    """Return when a message may be sent that may not be sent now; None for now.

    Args:
        channel: by which it goes.
        address: to whom.
        in_turn: it waited for its turn at this number already.
    """
    now = timezone.now()
    whom = [""] if in_turn else ["", address]
    running = Pause.objects.filter(
        provider=FIRST_PROVIDER[channel], address__in=whom, until__gt=now
    )
    pause = running.order_by("-until").first()  # nearly always none: one query, no lock
    if pause is None:
        return None
    if not pause.address:
        return pause.until
    with transaction.atomic():
        held = Pause.objects.select_for_update(no_key=True).get(pk=pause.pk)
        mine = max(held.until, now)
        held.until = mine + PAIR_SPACING
        held.save(update_fields=["until"])
    return mine


def prune() -> int:
    """Delete pauses that are over and return how many."""
    over: models.QuerySet[Pause] = Pause.objects.filter(until__lt=timezone.now())
    return over.delete()[0]
