"""The figures of a day: what reports count, and what each number means.

Days are those of the site's time zone. Money is counted per currency, never added across.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, QuerySet, Sum
from django.utils import timezone

from notifications.models import Delivery, DeliveryState
from queueadmin.models import DeadLetter

from .models import CENT, Order, OrderEvent
from .states import OrderState

#: Steps that are counted, each by when it happened.
COUNTED = (
    OrderState.PLACED,
    OrderState.CONFIRMED,
    OrderState.DELIVERED,
    OrderState.CANCELLED,
    OrderState.EXPIRED,
    OrderState.UNFULFILLABLE,
)


@dataclass(slots=True)
class Day:
    """What happened on one day."""

    day: date
    #: How many orders got into a state.
    steps: Counter[str] = field(default_factory=Counter)
    #: Value of the orders delivered, by currency.
    revenue: dict[str, Decimal] = field(default_factory=dict)
    #: Messages providers took.
    sent: int = 0
    #: Messages that failed, or of which nobody knows.
    failed: int = 0
    #: Jobs that failed for good, by the class of their error.
    causes: Counter[str] = field(default_factory=Counter)


def of_day(day: date) -> Day:
    """Count one day; each number is one query by an index."""
    zone = timezone.get_default_timezone()
    start = datetime.combine(day, time(), tzinfo=zone)
    end = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
    steps = OrderEvent.objects.filter(at__gte=start, at__lt=end, state__in=COUNTED)
    delivered = Order.objects.filter(
        history__state=OrderState.DELIVERED, history__at__gte=start, history__at__lt=end
    )
    messages = Delivery.objects.filter(created_at__gte=start, created_at__lt=end)
    dead = DeadLetter.objects.filter(died_at__gte=start, died_at__lt=end)
    by_state = dict(_counts(messages, "state"))
    return Day(
        day=day,
        steps=Counter(dict(_counts(steps, "state"))),
        revenue={
            currency: amount.quantize(CENT)
            for currency, amount in delivered.order_by("currency")
            .values_list("currency")
            .annotate(sum=Sum("total"))
        },
        sent=by_state.get(DeliveryState.SENT, 0),
        failed=by_state.get(DeliveryState.FAILED, 0) + by_state.get(DeliveryState.UNKNOWN, 0),
        causes=Counter(
            {name.rpartition(".")[2] or "?": count for name, count in _counts(dead, "error_class")}
        ),
    )


def total(days: list[Day]) -> Day:
    """Add days up, under the first one's date."""
    summed = Day(days[0].day)
    for day in days:
        summed.steps += day.steps
        summed.causes += day.causes
        summed.sent += day.sent
        summed.failed += day.failed
        for currency, amount in day.revenue.items():
            summed.revenue[currency] = summed.revenue.get(currency, Decimal()) + amount
    return summed


def _counts(rows: QuerySet[Any], name: str) -> list[tuple[str, int]]:
    return list(rows.order_by(name).values_list(name).annotate(count=Count("pk")))
