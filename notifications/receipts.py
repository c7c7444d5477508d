"""What providers say later about the messages they took: in any order, more than once.

A receipt names our reference, which was committed before the provider was called; so it
finds its delivery also when it comes before the send's own record. Each is kept once. The
delivery shows the one that says most (read > delivered > not delivered > on its way), by a
conditional update on the rank. And any receipt proves that the provider took the message:
a delivery of unknown outcome, or one that seemed to have failed, becomes sent by it.
"""

import hashlib
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from . import optouts
from .channels.base import text
from .models import Channel, Delivery, DeliveryState, Receipt, ReceiptStatus

logger = logging.getLogger(__name__)

KEEP = timedelta(days=90)
#: States that a receipt proves wrong; a run that is sending right now records for itself.
PROVEN = (DeliveryState.UNKNOWN, DeliveryState.PENDING, DeliveryState.FAILED)


@dataclass(frozen=True, slots=True)
class Word:
    """One receipt as a provider sent it."""

    provider: str
    message_id: str
    reference: str
    status: ReceiptStatus
    at: datetime
    said: str = ""
    #: The recipient does not want messages by this channel any more.
    opted_out: bool = False

    @property
    def key(self) -> str:
        """What is the same when the same receipt comes again."""
        facts = (self.provider, self.message_id, self.reference, self.status, self.at.isoformat())
        return hashlib.sha256("\0".join(facts).encode(errors="replace")).hexdigest()


def take(word: Word) -> bool:
    """Record a receipt; return whether it is new and about a message of ours."""
    delivery = _find(word)
    if delivery is None:
        logger.info("Receipt for an unknown message provider=%s", word.provider)
        return False
    with transaction.atomic():
        _, is_new = Receipt.objects.get_or_create(
            key=word.key,
            defaults={
                "delivery": delivery,
                "provider": word.provider,
                "status": word.status,
                "said": text(word.said),
                "at": word.at,
            },
        )
        if not is_new:
            return False
        Delivery.objects.filter(pk=delivery.pk, receipt_rank__lt=word.status.rank).update(
            receipt=word.status, receipt_rank=word.status.rank, receipt_at=word.at
        )
        taken = Delivery.objects.filter(pk=delivery.pk, state__in=PROVEN)
        taken.update(
            state=DeliveryState.SENT,
            provider=word.provider,
            provider_message_id=text(word.message_id)[:255],
            sent_at=word.at,
            error_code="",
            error_text="",
        )
        if word.opted_out and delivery.address:
            optouts.add(Channel(delivery.channel), delivery.address, source=word.provider)
    return True


def prune(*, older_than: timedelta = KEEP) -> int:
    """Delete old receipts and return how many; what they said stays on the delivery."""
    old = Receipt.objects.filter(received_at__lt=timezone.now() - older_than)
    return old.delete()[0]


def _find(word: Word) -> Delivery | None:
    try:
        named = Q(reference=uuid.UUID(word.reference))
    except ValueError:
        if not word.message_id:
            return None
        named = Q(provider=word.provider, provider_message_id=word.message_id)
    return Delivery.objects.filter(named).first()
