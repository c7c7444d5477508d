"""Jobs that send one delivery each, on the queue of its channel."""

import dramatiq

from . import delivery


@dramatiq.actor(queue_name="whatsapp-messages")
def send_whatsapp(delivery_id: int) -> None:
    """Send the delivery by WhatsApp."""
    delivery.send(delivery_id)


@dramatiq.actor(queue_name="email-notifications")
def send_email(delivery_id: int) -> None:
    """Send the delivery by e-mail."""
    delivery.send(delivery_id)


@dramatiq.actor(queue_name="sms-notifications")
def send_sms(delivery_id: int) -> None:
    """Send the delivery by SMS."""
    delivery.send(delivery_id)
