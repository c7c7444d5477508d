"""Which vendor is asked next: by price, stock and reliability.

A vendor can be asked who is active, was not asked for this order before, and has every
line in stock. Those are ranked by what the order costs there divided by the vendor's
reliability, so that a vendor who confirms half of its requests must be half as dear:

    reliability = (confirmed + 4) / (answered + 5)

over the requests of the last 90 days; refusals and silence are answers too. A new vendor
starts at 0.8, and one bad day does not end an old one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.db.models import Count, Q
from django.utils import timezone

from .models import Offer, Order, OrderLine, RequestState, Vendor

#: Requests older than this say nothing about a vendor of today.
MEMORY = timedelta(days=90)
#: What a vendor is credited with before its first request.
PRIOR_CONFIRMED, PRIOR_ANSWERED = 4, 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A vendor that could deliver the whole order."""

    vendor: Vendor
    cost: Decimal
    reliability: Decimal

    @property
    def rank(self) -> tuple[Decimal, int]:
        """The lower the better; ids decide between equals."""
        return self.cost / self.reliability, self.vendor.pk


def candidates(order: Order, lines: Sequence[OrderLine]) -> list[Candidate]:
    """Return the vendors to ask, best first."""
    costs = _costs(order, {line.product_id: line.quantity for line in lines})
    trust = _reliability([vendor.pk for vendor in costs])
    return sorted(
        (Candidate(vendor, cost, trust[vendor.pk]) for vendor, cost in costs.items()),
        key=lambda candidate: candidate.rank,
    )


def reliability(*, confirmed: int, answered: int) -> Decimal:
    """Return the share of requests a vendor can be trusted to confirm, above 0, up to 1."""
    return Decimal(confirmed + PRIOR_CONFIRMED) / Decimal(answered + PRIOR_ANSWERED)


def reliability_of(vendor: Vendor) -> Decimal:
    """Return the reliability of one vendor, for people."""
    return _reliability([vendor.pk])[vendor.pk]


def _costs(order: Order, wanted: dict[int, int]) -> dict[Vendor, Decimal]:
    offers = (
        Offer.objects.filter(vendor__is_active=True, product_id__in=wanted)
        .exclude(vendor__requests__order=order)
        .select_related("vendor")
    )
    found: dict[Vendor, dict[int, Decimal]] = {}
    for offer in offers:
        if offer.stock >= wanted[offer.product_id]:
            lines = found.setdefault(offer.vendor, {})
            lines[offer.product_id] = offer.price * wanted[offer.product_id]
    return {
        vendor: sum(lines.values(), Decimal())
        for vendor, lines in found.items()
        if len(lines) == len(wanted)
    }


def _reliability(vendor_ids: Sequence[int]) -> dict[int, Decimal]:
    recent = Q(requests__asked_at__gte=timezone.now() - MEMORY)
    answered = (RequestState.ACCEPTED, RequestState.REFUSED, RequestState.SILENT)
    counted = Vendor.objects.filter(pk__in=vendor_ids).annotate(
        confirmed=Count("requests", recent & Q(requests__state=RequestState.ACCEPTED)),
        answered=Count("requests", recent & Q(requests__state__in=answered)),
    )
    return {
        vendor.pk: reliability(confirmed=vendor.confirmed, answered=vendor.answered)
        for vendor in counted
    }
