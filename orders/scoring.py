"""A shop's credit score from how it paid: pure arithmetic, and one writer.

Each invoice of the last 365 days that is paid, or due, earns points:

| paid | points |
|---|---|
| when due, or before | 1 |
| up to 7 days late | 0.7 |
| up to 30 days late | 0.4 |
| later, or not yet and 30 days late by now | 0 |

An invoice that is late and not yet paid earns what it would if it were paid now.

    score = 1000 × (3 × 0.6 + sum of points) / (3 + number of invoices)

The three invoices at 0.6 stand for what is not known about a new shop, which therefore
begins at 600. The score is between 0 and 1000; it advises staff and changes no limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from django.utils import timezone

from .models import MAX_SCORE, CreditAccount

MEMORY = timedelta(days=365)
PRIOR_INVOICES, PRIOR_POINTS = 3, Decimal("0.6")
#: How late, at most, for how many points.
STEPS = (
    (timedelta(0), Decimal(1)),
    (timedelta(days=7), Decimal("0.7")),
    (timedelta(days=30), Decimal("0.4")),
)


@dataclass(frozen=True, slots=True)
class Conduct:
    """When an invoice was due, and when it was paid, if it was."""

    due_at: datetime
    settled_at: datetime | None


def score(invoices: Iterable[Conduct], now: datetime) -> int:
    """Return the score for these invoices, 0 to 1000."""
    judged = [conduct for conduct in invoices if conduct.settled_at or conduct.due_at <= now]
    earned = sum((_points(conduct, now) for conduct in judged), Decimal())
    share = (PRIOR_INVOICES * PRIOR_POINTS + earned) / (PRIOR_INVOICES + len(judged))
    return int((MAX_SCORE * share).to_integral_value(ROUND_HALF_UP))


def update(account_id: int) -> int:
    """Compute an account's score anew, record and return it; a second run changes nothing."""
    now = timezone.now()
    account = CreditAccount.objects.get(pk=account_id)
    recent = account.invoices.filter(due_at__gte=now - MEMORY)
    value = score((Conduct(*row) for row in recent.values_list("due_at", "settled_at")), now)
    CreditAccount.objects.filter(pk=account_id).update(score=value, scored_at=now)
    return value


def _points(conduct: Conduct, now: datetime) -> Decimal:
    late = (conduct.settled_at or now) - conduct.due_at
    return next((points for most, points in STEPS if late <= most), Decimal(0))
