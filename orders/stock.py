"""Takes an order's goods out of a vendor's stock, and puts them back.

Stock only changes by conditional updates of single rows, in the order of product ids, so
that it is never negative and two orders never wait for each other in a circle. That goods
are put back once is the business of the caller: it does so only in the transaction whose
conditional update took the request out of the states that hold stock.
"""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from .models import Offer, OrderLine, Vendor


class _OutOfStock(Exception):
    """Somebody else took it first."""


def reserve(lines: Sequence[OrderLine], vendor: Vendor) -> bool:
    """Take all lines from the vendor's stock, or none; return whether there was enough."""
    try:
        with transaction.atomic():
            for line in _sorted(lines):
                enough = Offer.objects.filter(
                    vendor=vendor, product_id=line.product_id, stock__gte=line.quantity
                )
                if not enough.update(stock=F("stock") - line.quantity):
                    raise _OutOfStock
    except _OutOfStock:
        return False
    return True


def give_back(lines: Sequence[OrderLine], vendor_id: int) -> None:
    """Put all lines back; an offer the vendor removed meanwhile is left removed."""
    for line in _sorted(lines):
        Offer.objects.filter(vendor_id=vendor_id, product_id=line.product_id).update(
            stock=F("stock") + line.quantity
        )


def _sorted(lines: Sequence[OrderLine]) -> list[OrderLine]:
    return sorted(lines, key=lambda line: line.product_id)
