"""Jobs about orders. Each takes ids and may run twice."""

import dramatiq

from . import (
    bookings,
    credit,
    expiry,
    payment_reminders,
    pictures,
    reports,
    scoring,
    telling,
    workflow,
)
from .models import CreditAccount, CreditDrift
from .states import OrderState


# --- The life of an order -----------------------------------------------------------------
@dramatiq.actor(queue_name="order-routing")
def route_order(order_id: int) -> None:
    """Ask the best vendor for an order that was just placed."""
    workflow.route(order_id)


@dramatiq.actor(queue_name="vendor-fallback")
def ask_next_vendor(order_id: int) -> None:
    """Ask the next vendor, after one refused or stayed silent."""
    workflow.route(order_id)


@dramatiq.actor(queue_name="vendor-fallback")
def fall_back(request_id: int) -> None:
    """Give a vendor up that has not answered by now."""
    workflow.give_up_on(request_id)


@dramatiq.actor(queue_name="order-processing")
def order_confirmation(order_id: int) -> None:
    """Tell the shop that a vendor confirmed its order."""
    telling.tell_shop(order_id, OrderState.CONFIRMED)


@dramatiq.actor(queue_name="order-processing")
def order_completion(order_id: int) -> None:
    """Tell the shop that its order has arrived."""
    telling.tell_shop(order_id, OrderState.DELIVERED)


@dramatiq.actor(queue_name="order-processing")
def order_cancellation(order_id: int) -> None:
    """Tell the shop, and the vendor that was asked, that an order is cancelled."""
    telling.tell_shop(order_id, OrderState.CANCELLED)
    telling.tell_released_vendors(order_id)


@dramatiq.actor(queue_name="order-processing")
def order_status_update(order_id: int, state: str) -> None:
    """Tell the shop what became of its order, and vendors when nothing did."""
    telling.tell_shop(order_id, OrderState(state))
    if state in (OrderState.EXPIRED, OrderState.UNFULFILLABLE):
        telling.tell_released_vendors(order_id)


@dramatiq.actor(queue_name="order-expiry")
def expire_order(order_id: int) -> None:
    """Expire the order if nobody has confirmed it."""
    workflow.expire(order_id)


@dramatiq.actor(queue_name="order-expiry")
def sweep_expired_orders() -> None:
    """Expire every order that waited too long, for safety beside the job per order."""
    for order_id in expiry.overdue():
        workflow.expire(order_id)


# --- Bookings -----------------------------------------------------------------------------
@dramatiq.actor(queue_name="booking-reminders")
def booking_reminder(reminder_id: int) -> None:
    """Remind the shop of its delivery, unless it moved or was cancelled."""
    bookings.remind(reminder_id)


# --- Credit -------------------------------------------------------------------------------
@dramatiq.actor(queue_name="payment-reminders")
def payment_reminder(invoice_id: int, stage: str) -> None:
    """Remind the shop of an invoice, unless it is paid."""
    payment_reminders.remind(invoice_id, payment_reminders.Stage(stage))


@dramatiq.actor(queue_name="payment-reminders")
def sweep_payment_reminders() -> None:
    """Enqueue the reminders that should have gone out by now; repeated ones tell nobody."""
    for invoice_id, stage in payment_reminders.overlooked():
        payment_reminder.send(invoice_id, stage.value)


@dramatiq.actor(queue_name="credit-score-calculation")
def calculate_credit_score(account_id: int) -> None:
    """Compute the score of one account anew."""
    scoring.update(account_id)


@dramatiq.actor(queue_name="credit-score-calculation")
def recalculate_credit_scores() -> None:
    """Compute all scores anew: invoices become late without anybody doing anything."""
    for account_id in CreditAccount.objects.values_list("pk", flat=True).iterator():
        scoring.update(account_id)


@dramatiq.actor(queue_name="credit-reconciliation")
def reconcile_credit() -> None:
    """Enqueue the reconciliation of all accounts, some at a time."""
    ids = list(CreditAccount.objects.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), credit.BATCH):
        reconcile_accounts.send(ids[start : start + credit.BATCH])


@dramatiq.actor(queue_name="credit-reconciliation")
def reconcile_accounts(account_ids: list[int]) -> int:
    """Find accounts whose balance is not the sum of their entries; return how many are new."""
    found = credit.reconcile(account_ids)
    if found:
        report_drifts.send([drift.pk for drift in found])
    return len(found)


@dramatiq.actor(queue_name="credit-reconciliation")
def report_drifts(drift_ids: list[int]) -> None:
    """Mail new drifts to the staff who look after the accounts."""
    drifts = CreditDrift.objects.select_related("account__retailer").filter(pk__in=drift_ids)
    telling.tell_of_drifts(drifts)


# --- Pictures and reports -----------------------------------------------------------------
@dramatiq.actor(queue_name="image-processing")
def fetch_picture(picture_id: int) -> None:
    """Fetch a picture from the address staff gave."""
    pictures.fetch(picture_id)


@dramatiq.actor(queue_name="image-processing")
def make_thumbnails(picture_id: int) -> None:
    """Resize a picture."""
    pictures.make_thumbnails(picture_id)


@dramatiq.actor(queue_name="report-generation")
def generate_report(report_id: int) -> None:
    """Make a report somebody asked for."""
    reports.generate(report_id)


@dramatiq.actor(queue_name="daily-reports")
def daily_report() -> None:
    """Ask for yesterday's report."""
    reports.request_daily()


@dramatiq.actor(queue_name="daily-reports")
def generate_daily_report(report_id: int) -> None:
    """Make the report of a day."""
    reports.generate(report_id)
