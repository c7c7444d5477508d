"""Lets staff send a message again: one of unknown outcome, or one that did not arrive.

What is unknown is sent again by its own delivery, for perhaps it was never sent. What the
provider took and reported as not delivered gets a new delivery, so that late receipts of the
first message say nothing about the second; a delivery has at most one such successor.
Whoever presses twice, or together with somebody else, finds the second time nothing to do.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from queueadmin import audit, deadletters
from queueadmin.exceptions import NotPermitted
from queueadmin.models import DeadLetter, Job

from .announcing import SENDERS
from .models import Channel, Delivery, DeliveryState, ReceiptStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PERMISSION = "notifications.resend_delivery"
#: Deliveries of one act.
LIMIT = 500


class Skip(models.TextChoices):
    """Why a delivery is left as it is."""

    RESENT = "resent", _("resent already")
    NOT_FAILED = "not failed", _("neither unknown nor reported as not delivered")
    OVER_LIMIT = "over limit", _("over the limit of one action")


@dataclass(frozen=True, slots=True)
class Resent:
    """What became of the chosen deliveries."""

    #: Deliveries that are sent again, each by itself or by its successor.
    done: set[int] = field(default_factory=set)
    #: Those among them that wait for somebody who may requeue their dead letters.
    held: set[int] = field(default_factory=set)
    skipped: Counter[Skip] = field(default_factory=Counter)


def skip(delivery: Delivery) -> Skip | None:
    """Return why a delivery cannot be resent now; None where it can."""
    if delivery.state == DeliveryState.UNKNOWN:
        return None
    if delivery.state != DeliveryState.SENT or delivery.receipt != ReceiptStatus.FAILED:
        return Skip.NOT_FAILED
    return Skip.RESENT if hasattr(delivery, "successor") else None


def resend(delivery_ids: Iterable[int], *, by: "User", reason: str) -> Resent:
    """Send deliveries again that are of unknown outcome or were not delivered.

    Args:
        delivery_ids: which ones.
        by: who decides.
        reason: why it is safe or wanted; required.

    Raises:
        NotPermitted: `by` may not resend.
        ValueError: the reason is empty.
    """
    if not by.has_perm(PERMISSION):
        raise NotPermitted(f"{by.get_username()} lacks the permission {PERMISSION}.")
    if not reason.strip():
        raise ValueError("Resending needs a reason.")
    result = Resent()
    # One order for all, or rows deadlock.
    for number, delivery_id in enumerate(sorted(set(delivery_ids))):
        if number >= LIMIT:
            result.skipped[Skip.OVER_LIMIT] += 1
        else:
            _resend(delivery_id, by, reason.strip(), result)
    return result


def _resend(delivery_id: int, by: "User", reason: str, result: Resent) -> None:
    with transaction.atomic():
        # Locked, so that a receipt or a second press comes before this or after it. Its
        # successor is looked up by a statement of its own: joined, it would be read before
        # the lock is waited for.
        delivery = Delivery.objects.select_for_update(no_key=True).filter(pk=delivery_id).first()
        why = Skip.NOT_FAILED if delivery is None else skip(delivery)
        if delivery is None or why is not None:
            result.skipped[why or Skip.NOT_FAILED] += 1
            return
        if delivery.state == DeliveryState.UNKNOWN:
            # A run that is alive after all loses its claim, and its record comes to nothing.
            Delivery.objects.filter(pk=delivery.pk).update(state=DeliveryState.PENDING, claim=None)
            if not _requeue(delivery, by, reason):
                result.held.add(delivery.pk)
        else:
            _enqueue(_succeed(delivery))
        audit.record("resend", "delivery", [delivery.pk], by=by, reason=reason)
        result.done.add(delivery.pk)


def _succeed(delivery: Delivery) -> Delivery:
    """Plan the same message once more; its address is looked up when it is sent."""
    return Delivery.objects.create(
        resends=delivery,
        event=delivery.event,
        subject=delivery.subject,
        recipient=delivery.recipient,
        recipient_name=delivery.recipient_name,
        channel=delivery.channel,
        occasion=f"resends {delivery.pk}",
        language=delivery.language,
        context=delivery.context,
    )


def _enqueue(delivery: Delivery) -> None:
    sender = SENDERS[Channel(delivery.channel)]
    sender.send_with_options(args=(delivery.pk,), subject=delivery.subject)


def _requeue(delivery: Delivery, by: "User", reason: str) -> bool:
    """Let the delivery's job run again; return whether it will without anybody else."""
    sender = SENDERS[Channel(delivery.channel)]
    jobs = Job.objects.filter(subject=delivery.subject, actor=sender.actor_name)
    ours = [job for job in jobs if _is_about(job, delivery)]
    if any(not job.is_finished for job in ours):
        return True
    letters = DeadLetter.objects.pending().filter(job__in=ours).values_list("pk", flat=True)
    if not letters:  # closed or removed meanwhile
        _enqueue(delivery)
        return True
    try:
        return bool(deadletters.requeue(letters[:1], by=by, reason=reason).done)
    except NotPermitted:
        return False


def _is_about(job: Job, delivery: Delivery) -> bool:
    arguments = (job.payload or {}).get("args")
    return isinstance(arguments, list) and arguments[:1] == [delivery.pk]
