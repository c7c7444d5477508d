"""What people write to us by WhatsApp: STOP, START, and what the business answers.

The business registers its words in its AppConfig; this app knows only how to stop.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from . import optouts
from .models import Channel, Incoming

logger = logging.getLogger(__name__)

Handler = Callable[[Incoming], object]

STOP_WORDS = frozenset({"stop", "unsubscribe", "stopp", "ende"})
START_WORDS = frozenset({"start", "weiter"})
KEEP = timedelta(days=90)

_handlers: dict[str, Handler] = {}


def register(words: frozenset[str], handler: Handler) -> None:
    """Let `handler` answer messages that consist of one of these words, in lower case."""
    _handlers.update(dict.fromkeys(words, handler))


def take(*, message_id: str, sender: str, text: str, at: datetime) -> bool:
    """Keep a message and enqueue its answer; return whether it is new."""
    # Actors call this module.
    from .actors import answer_incoming

    # Together: of a message that is kept and has no job, a repeated call would not be new.
    with transaction.atomic():
        message, is_new = Incoming.objects.get_or_create(
            provider_message_id=message_id[:255],
            defaults={"sender": sender[:20], "text": text[:1000], "at": at},
        )
        if is_new:
            answer_incoming.send(message.pk)
    return is_new


def handle(incoming_id: int) -> None:
    """Do what the message asks for; a word nobody knows is left for people to read."""
    message = Incoming.objects.get(pk=incoming_id)
    word = message.text.strip().strip("?!. ").lower()
    if word in STOP_WORDS:
        optouts.add(Channel.WHATSAPP, message.sender, source="message")
    elif word in START_WORDS:
        optouts.remove(Channel.WHATSAPP, message.sender)
    elif handler := _handlers.get(word):
        handler(message)
    else:
        logger.info("Nobody answers incoming=%s", message.pk)


def prune(*, older_than: timedelta = KEEP) -> int:
    """Delete old messages and return how many."""
    old = Incoming.objects.filter(received_at__lt=timezone.now() - older_than)
    return old.delete()[0]
