"""Finds the orders that nobody confirmed in time."""

from datetime import timedelta

from django.utils import timezone

from .models import Order
from .states import OrderState, before

#: How long an order may wait for its confirmation.
TIME_TO_CONFIRM = timedelta(minutes=30)
#: Orders per sweep; each is a short transaction of its own, and the next sweep goes on.
BATCH = 500


def overdue() -> list[int]:
    """Return the ids of orders to expire, oldest first, at most a batch."""
    waiting = Order.objects.filter(
        state__in=before(OrderState.EXPIRED), placed_at__lte=timezone.now() - TIME_TO_CONFIRM
    )
    return list(waiting.order_by("placed_at").values_list("pk", flat=True)[:BATCH])
