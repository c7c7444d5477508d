"""Run inside a site by `manage.py shell`: prints facts about its business as JSON.

The tests of a whole site ask through this, so that they know nothing of its database.
"""

import json
from collections import Counter

from django.db.models import Count, F, Q, Sum

from notifications.models import Delivery
from orders.models import CreditAccount, Offer, Order, OrderLine
from queueadmin.models import Job
from queueadmin.states import UNFINISHED

taken = {
    (row["order__vendor"], row["product"]): row["sum"]
    for row in OrderLine.objects.filter(order__requests__state__in=["open", "accepted"])
    .values("order__vendor", "product")
    .annotate(sum=Sum("quantity"))
}
print(
    json.dumps(
        {
            "orders": dict(Counter(Order.objects.values_list("state", flat=True))),
            "stock": [
                [stock, taken.get((vendor, product), 0)]
                for vendor, product, stock in Offer.objects.values_list(
                    "vendor", "product", "stock"
                )
            ],
            "accounts": [
                [str(balance), str(total), str(limit)]
                for (_pk, balance, total), limit in zip(
                    CreditAccount.objects.order_by("pk").sums(),
                    CreditAccount.objects.order_by("pk").values_list("limit", flat=True),
                    strict=True,
                )
            ],
            "charges_without_order": CreditAccount.objects.filter(
                Q(entries__kind="charge") & ~Q(entries__order__payment="credit")
            ).count(),
            "requests_too_many": Order.objects.annotate(
                held=Count("requests", Q(requests__state__in=["open", "accepted"]))
            )
            .filter(held__gt=1)
            .count(),
            "deliveries": [
                [str(reference), event, channel, subject, state]
                for reference, event, channel, subject, state in Delivery.objects.values_list(
                    "reference", "event", "channel", "subject", "state"
                )
            ],
            "busy": Job.objects.filter(state__in=UNFINISHED)
            .exclude(state="scheduled", due_at__gt=F("enqueued_at"))
            .count(),
            # Of each letter about a message of unknown outcome, the message's reference.
            "letters": [
                str(Delivery.objects.get(pk=job.payload["args"][0]).reference)
                for job in Job.objects.filter(state="dead", error_class="OutcomeUnknown")
            ],
        }
    )
)
