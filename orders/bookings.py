"""Delivery slots of orders, and their reminders: the only writer of bookings.

A slot counts its bookings by conditional updates, so it is never overfull. A booking has a
version, raised by each change; its reminders belong to one version, and a job that finds
its reminder void, sent or skipped does nothing. Moving or cancelling a booking also cancels the
scheduled jobs, but does not depend on it. Rows are locked in the order
order, booking, slots by id.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from queueadmin import clock
from queueadmin.models.job import subject_key

from . import telling, timers
from .exceptions import NotAllowedNow, SlotFull
from .models import (
    Booking,
    BookingReminder,
    DeliverySlot,
    Order,
    ReminderKind,
    ReminderState,
)
from .states import BOOKABLE

#: A reminder that comes later than this after its time is skipped; "1 hour before" must not
#: arrive when the car does.
LATENESS = timedelta(minutes=10)


def book(order: Order, slot: DeliverySlot) -> Booking:
    """Book a slot for an order, or move its booking there.

    Raises:
        SlotFull: there is no room left, or the slot has begun.
        NotAllowedNow: the order has left already, or has ended.
    """
    now = clock.now()
    with transaction.atomic():
        _hold(order, now)
        booking = Booking.objects.filter(order=order).first()
        left = booking.slot_id if booking is not None and not booking.cancelled_at else None
        if booking is not None and left == slot.pk:
            return booking
        # By id, for somebody else may change between the same two slots the other way.
        for slot_id in sorted({slot.pk} if left is None else {slot.pk, left}):
            _take(slot_id, now) if slot_id == slot.pk else _leave(slot_id)
        if booking is None:
            booking = Booking(order=order, slot=slot, changed_at=now)
        else:
            _void(order)
            booking.slot, booking.cancelled_at = slot, None
            booking.version += 1
            booking.changed_at = now
        booking.save()
        _plan(booking, now)
    return booking


def cancel(order: Order) -> bool:
    """Give an order's slot back; return whether it had one.

    Raises:
        NotAllowedNow: the order has left already, or has ended.
    """
    with transaction.atomic():
        _hold(order, clock.now())
        return end(order)


def end(order: Order) -> bool:
    """Give the slot of an order back that is given up, in the caller's transaction."""
    booking = Booking.objects.filter(order=order, cancelled_at__isnull=True).first()
    if booking is None:
        return False
    _leave(booking.slot_id)
    _void(order)
    now = clock.now()
    Booking.objects.filter(pk=booking.pk).update(cancelled_at=now, changed_at=now)
    return True


def fulfil(order: Order) -> None:
    """Send no more reminders for an order that has arrived."""
    _void(order)


def remind(reminder_id: int) -> bool:
    """Send one reminder unless it is over; return whether this call did it."""
    now = clock.now()
    with transaction.atomic():
        planned = BookingReminder.objects.filter(
            pk=reminder_id, state=ReminderState.PLANNED, due_at__lte=now
        )
        # The row's lock lasts until commit: a booking that moves meanwhile waits, and
        # finds the reminder sent; or it was first, and nothing is left to send.
        if not planned.update(state=ReminderState.SENT):
            return False
        reminder = BookingReminder.objects.select_related(
            "booking__slot", "booking__order__retailer"
        ).get(pk=reminder_id)
        if now - reminder.due_at > LATENESS:
            BookingReminder.objects.filter(pk=reminder_id).update(state=ReminderState.SKIPPED)
            return False
        telling.remind_of_delivery(reminder)
    return True


def _hold(order: Order, now: datetime) -> None:
    held = Order.objects.filter(pk=order.pk, state__in=BOOKABLE)
    if not held.update(changed_at=now):
        raise NotAllowedNow(_("The delivery of this order cannot be changed any more."))


def _take(slot_id: int, now: datetime) -> None:
    room = DeliverySlot.objects.filter(pk=slot_id, starts_at__gt=now, booked__lt=F("capacity"))
    if not room.update(booked=F("booked") + 1):
        raise SlotFull(_("This delivery time is not free any more. Please choose another."))


def _leave(slot_id: int) -> None:
    DeliverySlot.objects.filter(pk=slot_id).update(booked=F("booked") - 1)


def _void(order: Order) -> None:
    planned = BookingReminder.objects.filter(booking__order=order, state=ReminderState.PLANNED)
    planned.update(state=ReminderState.VOID)
    timers.stop(order, "booking_reminder", reason="the booking was moved or has ended")


def _plan(booking: Booking, now: datetime) -> None:
    from .actors import booking_reminder

    subject = subject_key(booking.order)
    for kind in ReminderKind:
        due_at = booking.slot.starts_at - kind.before
        is_past = due_at <= now
        reminder = BookingReminder.objects.create(
            booking=booking,
            version=booking.version,
            kind=kind,
            due_at=due_at,
            state=ReminderState.SKIPPED if is_past else ReminderState.PLANNED,
        )
        if not is_past:
            booking_reminder.send_with_options(
                args=(reminder.pk,), subject=subject, delay=due_at - now
            )
