"""What recurs without anybody asking for it."""

from datetime import timedelta

from queueadmin.schedules import Schedule

SCHEDULES: dict[str, Schedule] = {
    "recovery": Schedule(actor="queueadmin.recover", every=timedelta(minutes=5)),
    "retention": Schedule(actor="queueadmin.apply_retention", every=timedelta(hours=1)),
    "digests": Schedule(actor="queueadmin.send_digests", cron="0 7 * * *"),
    "order-expiry": Schedule(actor="sweep_expired_orders", every=timedelta(minutes=1)),
    "payment-reminders": Schedule(actor="sweep_payment_reminders", cron="0 9 * * *"),
    "credit-reconciliation": Schedule(actor="reconcile_credit", every=timedelta(hours=1)),
    "daily-report": Schedule(actor="daily_report", cron="0 2 * * *"),
    "credit-scores": Schedule(actor="recalculate_credit_scores", cron="30 3 * * *"),
    "notifications-clean-up": Schedule(actor="clean_up_notifications", cron="15 4 * * *"),
}
