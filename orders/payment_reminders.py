"""Reminds shops of their invoices: before they are due, and after.

Each stage is a job of its own, scheduled when the invoice is made. The job looks at the
invoice first, so one that was paid meanwhile is left alone; the delivery's occasion makes
a stage happen once, whichever of job and daily sweep comes first.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from queueadmin import clock
from queueadmin.models.job import subject_key

from . import telling
from .models import Invoice


class Stage(StrEnum):
    """How long before or after its due date an invoice is brought to mind."""

    SOON = "3 days before"
    TODAY = "on the day"
    LATE = "3 days after"
    VERY_LATE = "10 days after"

    @property
    def offset(self) -> timedelta:
        """Time from the due date to the reminder."""
        days = {Stage.SOON: -3, Stage.TODAY: 0, Stage.LATE: 3, Stage.VERY_LATE: 10}
        return timedelta(days=days[self])

    @property
    def is_late(self) -> bool:
        """Whether the invoice should have been paid by then."""
        return self.offset > timedelta(0)


#: A reminder that could not go out for so long says nothing true any more.
STALE = timedelta(days=2)


def plan(invoice: Invoice) -> None:
    """Schedule the reminders of a new invoice, in the caller's transaction."""
    from .actors import payment_reminder

    now = clock.now()
    for stage in Stage:
        wait = invoice.due_at + stage.offset - now
        if wait > timedelta(0):
            payment_reminder.send_with_options(
                args=(invoice.pk, stage.value), subject=subject_key(invoice.order), delay=wait
            )


def remind(invoice_id: int, stage: Stage) -> bool:
    """Tell the shop of an open invoice; return whether this call did it."""
    invoice = (
        Invoice.objects.open()
        .select_related("account__retailer", "order__retailer")
        .filter(pk=invoice_id)
        .first()
    )
    if invoice is None or not _is_time(invoice, stage, clock.now()):
        return False
    return bool(telling.remind_of_payment(invoice, late=stage.is_late, occasion=stage.value))


def overlooked() -> Iterator[tuple[int, Stage]]:
    """Yield what should have been reminded of lately; who was told already is told nothing."""
    now = clock.now()
    for stage in Stage:
        due = now - stage.offset
        rows = Invoice.objects.open().filter(due_at__lte=due, due_at__gt=due - STALE)
        for invoice_id in rows.values_list("pk", flat=True).iterator():
            yield invoice_id, stage


def _is_time(invoice: Invoice, stage: Stage, now: datetime) -> bool:
    return timedelta(0) <= now - (invoice.due_at + stage.offset) <= STALE
