"""Jobs about orders. Each takes ids and may run twice."""

import dramatiq

from . import expiry, workflow


@dramatiq.actor(queue_name="order-processing")
def order_confirmation(order_id: int) -> None:
    """Confirm the order and announce it."""
    workflow.confirm(order_id)


@dramatiq.actor(queue_name="order-expiry")
def expire_order(order_id: int) -> None:
    """Expire the order if nobody has confirmed it."""
    workflow.expire(order_id)


@dramatiq.actor(queue_name="order-expiry")
def sweep_expired_orders() -> None:
    """Expire every order that waited too long, for safety beside the job per order."""
    for order_id in expiry.overdue():
        workflow.expire(order_id)
