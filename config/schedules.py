"""What recurs without anybody asking for it."""

from datetime import timedelta

from queueadmin.schedules import Schedule

SCHEDULES: dict[str, Schedule] = {
    "recovery": Schedule(actor="queueadmin.recover", every=timedelta(minutes=5)),
    "retention": Schedule(actor="queueadmin.apply_retention", every=timedelta(hours=1)),
    "order-expiry": Schedule(actor="sweep_expired_orders", every=timedelta(minutes=1)),
}
