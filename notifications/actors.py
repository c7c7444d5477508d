"""Jobs that send one delivery each, on the queue of its channel, and take what comes in."""

import dramatiq

from . import delivery, incoming, pauses, receipts
from .models import Delivery

RUNBOOK = (
    "Open the delivery that is linked here: it has the provider's answer. A repeat sends only what "
    "was not sent; where the outcome is unknown, ask the recipient or look at the provider's own "
    "list, then resend from the delivery's page."
)


@dramatiq.actor(queue_name="whatsapp-messages", runbook=RUNBOOK)
def send_whatsapp(delivery_id: int, in_turn: bool = False) -> None:
    """Send the delivery by WhatsApp."""
    _send(send_whatsapp, delivery_id, in_turn=in_turn)


@dramatiq.actor(queue_name="email-notifications", runbook=RUNBOOK)
def send_email(delivery_id: int, in_turn: bool = False) -> None:
    """Send the delivery by e-mail."""
    _send(send_email, delivery_id, in_turn=in_turn)


@dramatiq.actor(queue_name="sms-notifications", runbook=RUNBOOK)
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
    """Send now, or come back when pause or quiet hours are over; that costs no attempt."""
    later = delivery.send(delivery_id, in_turn=in_turn)
    if later is None:
        return
    subject = Delivery.objects.values_list("subject", flat=True).get(pk=delivery_id)
    actor.send_with_options(args=(delivery_id, later.in_turn), subject=subject, delay=later.delay)
