"""The states of an order, and which may follow which."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class OrderState(TextChoices):
    """Where an order is."""

    PLACED = "placed", _("placed")  # saved, nothing decided yet
    ROUTING = "routing", _("choosing a vendor")
    AWAITING_VENDOR = "awaiting_vendor", _("waiting for the vendor")
    CONFIRMED = "confirmed", _("confirmed")
    OUT_FOR_DELIVERY = "out_for_delivery", _("out for delivery")
    DELIVERED = "delivered", _("delivered")
    CANCELLED = "cancelled", _("cancelled")
    EXPIRED = "expired", _("expired")  # nobody confirmed it in time
    UNFULFILLABLE = "unfulfillable", _("cannot be delivered")  # no vendor is left


#: Every allowed change; the workflow's conditional updates follow it.
TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    OrderState.PLACED: frozenset(
        {
            OrderState.ROUTING,
            OrderState.CANCELLED,
            OrderState.EXPIRED,
        }
    ),
    OrderState.ROUTING: frozenset(
        {
            OrderState.AWAITING_VENDOR,
            OrderState.UNFULFILLABLE,
            OrderState.CANCELLED,
            OrderState.EXPIRED,
        }
    ),
    OrderState.AWAITING_VENDOR: frozenset(
        {
            OrderState.ROUTING,
            OrderState.CONFIRMED,
            OrderState.CANCELLED,
            OrderState.EXPIRED,
        }
    ),
    OrderState.CONFIRMED: frozenset({OrderState.OUT_FOR_DELIVERY, OrderState.CANCELLED}),
    OrderState.OUT_FOR_DELIVERY: frozenset({OrderState.DELIVERED}),
    OrderState.DELIVERED: frozenset(),
    OrderState.CANCELLED: frozenset(),
    OrderState.EXPIRED: frozenset(),
    OrderState.UNFULFILLABLE: frozenset(),
}


#: States in which a delivery slot may be booked, moved or given back.
BOOKABLE = frozenset(
    {
        OrderState.PLACED,
        OrderState.ROUTING,
        OrderState.AWAITING_VENDOR,
        OrderState.CONFIRMED,
    }
)


def before(target: OrderState) -> list[OrderState]:
    """Return the states from which an order may become `target`."""
    return [state for state, following in TRANSITIONS.items() if target in following]
