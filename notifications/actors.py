"""Jobs that send one delivery each, on the queue of its channel, and take what comes in."""

import dramatiq
from django.utils import timezone

from . import delivery, incoming, pauses, receipts
from .models import Delivery


@dramatiq.actor(queue_name="whatsapp-messages")
def send_whatsapp(delivery_id: int, in_turn: bool = False) -> None:
    """Send the delivery by WhatsApp."""
    _send(send_whatsapp, delivery_id, in_turn=in_turn)


@dramatiq.actor(queue_name="email-notifications")
def send_email(delivery_id: int, in_turn: bool = False) -> None:
    """Send the delivery by e-mail."""
    _send(send_email, delivery_id, in_turn=in_turn)


@dramatiq.actor(queue_name="sms-notifications")
def send_sms(delivery_id: int, in_turn: bool = False) -> None:
    """Send the delivery by SMS."""
    _send(send_sms, delivery_id, in_turn=in_turn)


@dramatiq.actor(queue_name="whatsapp-messages")
def answer_incoming(incoming_id: int) -> None:
    """Do what somebody asked for by WhatsApp."""
    incoming.handle(incoming_id)


@dramatiq.actor(queue_name="data-cleanup")
def clean_up_notifications() -> None:
    """Delete receipts, incoming messages and pauses that nobody needs any more."""
    pauses.prune()
    receipts.prune()
    incoming.prune()


def _send(actor: "dramatiq.Actor[..., None]", delivery_id: int, *, in_turn: bool) -> None:
    """Send now, or come back when the provider's pause is over; that costs no attempt."""
    later = delivery.send(delivery_id, in_turn=in_turn)
    if later is None:
        return
    subject = Delivery.objects.values_list("subject", flat=True).get(pk=delivery_id)
    actor.send_with_options(
        args=(delivery_id, True), subject=subject, delay=max(later - timezone.now(), delivery.SOON)
    )
