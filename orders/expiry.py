"""Finds the orders that nobody confirmed in time."""

from queueadmin import clock

from .models import Order
from .states import OrderState, before

#: Orders per sweep; each is a short transaction of its own, and the next sweep goes on.
BATCH = 500


def overdue() -> list[int]:
    """Return the ids of orders to expire, oldest first, at most a batch."""
    waiting = Order.objects.filter(
        state__in=before(OrderState.EXPIRED), expires_at__lte=clock.now()
    )
    return list(waiting.order_by("expires_at").values_list("pk", flat=True)[:BATCH])
