"""Sends a delivery at most once, whatever is retried or redelivered.

A run claims the delivery with a committed update, calls the provider outside of any
transaction, and records the outcome under its claim. Who finds somebody else's claim
cannot know how far that run came: the delivery becomes unknown and a person decides.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from . import attachments, optouts, pauses, preferences, recipients, rendering
from .channels import email, sms, whatsapp
from .channels.base import Receipt, text
from .exceptions import DeliveryError, DeliveryMissing, OutcomeUnknown, RecipientRejected
from .models import Channel, Delivery, DeliveryState, Event
from .phones import is_phone

if TYPE_CHECKING:
    from django.db.models import QuerySet

logger = logging.getLogger(__name__)

#: A turn that has come meanwhile is taken after this; the queue wants a delay above 0.
SOON = timedelta(milliseconds=100)
#: Codes by which providers say that the recipient wants no more.
OPTED_OUT = frozenset({"opted_out", "131050"})
#: States from which a run may take a delivery.
SENDABLE = (DeliveryState.PENDING, DeliveryState.FAILED)


@dataclass(frozen=True, slots=True)
class Later:
    """A delivery that must not be sent now; nothing was tried."""

    at: datetime
    #: Whether that is its turn at this number; see `notifications.pauses`.
    in_turn: bool

    @property
    def delay(self) -> timedelta:
        """How long that is from now."""
        return max(self.at - timezone.now(), SOON)


def send(delivery_id: int, *, in_turn: bool = False) -> Later | None:
    """Send the delivery unless it is sent already, or its recipient opted out or sleeps.

    Args:
        delivery_id: which one.
        in_turn: it waited for its turn already; see `notifications.pauses`.

    Returns:
        None when nothing is left to do; otherwise when to come back, because the provider
        wants a pause or the recipient its peace.

    Raises:
        DeliveryMissing: there is no such delivery.
        OutcomeUnknown: it may have been sent; only a person may allow it again.
        DeliveryError: it was not sent; the subclass says whether and when to try again.
    """
    delivery = Delivery.objects.filter(pk=delivery_id).first()
    if delivery is None:
        raise DeliveryMissing(f"Delivery {delivery_id!r} does not exist.", code="missing")
    channel = Channel(delivery.channel)
    address = _address(delivery)
    if delivery.state in SENDABLE and address:
        if optouts.holds(channel, address):
            _suppress(delivery, address)
            return None
        if later := _later(delivery, address, in_turn=in_turn):
            logger.info("Waiting delivery=%s until=%s", delivery.pk, later.at.isoformat())
            return later
    claim = uuid.uuid4()
    # Durable: the claim must be in the database before the provider is called.
    with transaction.atomic(durable=True):
        # A receipt proves that an earlier call was taken, whatever that call came back with.
        claimed = Delivery.objects.filter(
            pk=delivery_id, state__in=SENDABLE, receipt_rank=0
        ).update(state=DeliveryState.SENDING, claim=claim, claimed_at=timezone.now())
    if not claimed:
        _refuse(Delivery.objects.get(pk=delivery_id))
        return None
    receipt = _call(delivery, claim)
    if receipt is None:
        logger.info("Sent by its receipt delivery=%s", delivery.pk)
        return None
    _record(
        delivery,
        claim,
        state=DeliveryState.SENT,
        provider=receipt.provider,
        provider_message_id=receipt.message_id,
        sent_at=timezone.now(),
        error_code="",
        error_text="",
    )
    logger.info("Sent delivery=%s provider=%s", delivery.pk, receipt.provider)
    return None


def _later(delivery: Delivery, address: str, *, in_turn: bool) -> Later | None:
    """Return when to come back: after quiet hours first, for a turn would pass in them."""
    recipient = recipients.find(delivery.recipient)
    if quiet_until := preferences.quiet_until(Event(delivery.event), recipient):
        return Later(quiet_until, in_turn=False)
    if turn := pauses.turn(Channel(delivery.channel), address, in_turn=in_turn):
        return Later(turn, in_turn=True)
    return None


def _refuse(delivery: Delivery) -> None:
    """Return quietly where the delivery is sent; otherwise its outcome is unknown."""
    if delivery.state in (DeliveryState.SENT, DeliveryState.SUPPRESSED):
        logger.info("Already %s delivery=%s", delivery.state, delivery.pk)
        return
    if delivery.receipt_rank:  # the provider's receipt came, the run's own record did not
        Delivery.objects.filter(pk=delivery.pk, state=delivery.state, claim=delivery.claim).update(
            state=DeliveryState.SENT, sent_at=delivery.receipt_at
        )
        logger.info("Sent by its receipt delivery=%s", delivery.pk)
        return
    error = OutcomeUnknown(
        f"An earlier run of delivery {delivery.pk} ended between the provider's answer and its "
        "record. Look at the provider whether it arrived; then resend the delivery, or close "
        "this dead letter.",
        provider=delivery.provider,
        code="interrupted",
    )
    # Under the other run's claim: if that one is alive after all, its own record wins.
    Delivery.objects.filter(
        pk=delivery.pk, state=DeliveryState.SENDING, claim=delivery.claim
    ).update(state=DeliveryState.UNKNOWN, error_code=error.code, error_text=str(error))
    raise error


def _call(delivery: Delivery, claim: uuid.UUID) -> Receipt | None:
    """Call the provider and return its receipt; record a failure and raise it.

    None where the call failed for us, and the provider's own receipt says that it was taken.
    """
    try:
        provider_call = _prepare(delivery)
    except Exception as error:  # recorded as what it is: nothing was sent; then raised
        _record_failure(delivery, claim, error, DeliveryState.FAILED)
        raise
    try:
        return provider_call()
    except OutcomeUnknown as error:
        if _record_failure(delivery, claim, error, DeliveryState.UNKNOWN):
            return None
        raise
    except DeliveryError as error:
        pauses.note(error, address=delivery.address)
        if error.code in OPTED_OUT:
            optouts.add(Channel(delivery.channel), delivery.address, source=error.provider)
        if _record_failure(delivery, claim, error, DeliveryState.FAILED):
            return None
        raise
    except Exception as error:
        # An error we did not foresee may have struck after the request was taken.
        logger.exception("Unforeseen error in delivery=%s", delivery.pk)
        if _record_failure(delivery, claim, error, DeliveryState.UNKNOWN):
            return None
        raise OutcomeUnknown(
            f"Delivery {delivery.pk} broke off with {type(error).__name__}: {error}",
            code="unforeseen",
        ) from error


def _prepare(delivery: Delivery) -> Callable[[], Receipt]:
    """Return the provider call with the recipient's current address and rendered text."""
    channel, event = Channel(delivery.channel), Event(delivery.event)
    address = recipients.find(delivery.recipient).notification_address(channel)
    delivery.address = address[:254]
    _check_address(channel, address)
    reference, language = str(delivery.reference), delivery.language
    match channel:
        case Channel.WHATSAPP:
            message = rendering.whatsapp(event, delivery.context, language=language)
            return lambda: whatsapp.send(message, to=address, reference=reference)
        case Channel.EMAIL:
            letter = rendering.email(
                event,
                delivery.context,
                language=language,
                attachments=attachments.load(delivery.context.get("attachments", [])),
                unsubscribe=optouts.url(address),
            )
            return lambda: email.send(letter, to=address, reference=reference)
        case Channel.SMS:
            short = rendering.sms(event, delivery.context, language=language)
            return lambda: sms.send(short, to=address, reference=reference)


def _address(delivery: Delivery) -> str:
    """Return where it would go now; empty where `_prepare` will say what is wrong."""
    try:
        recipient = recipients.find(delivery.recipient)
    except RecipientRejected:
        return ""
    return recipient.notification_address(Channel(delivery.channel))


def _suppress(delivery: Delivery, address: str) -> None:
    Delivery.objects.filter(pk=delivery.pk, state__in=SENDABLE).update(
        state=DeliveryState.SUPPRESSED, address=address[:254]
    )
    logger.info("Opted out delivery=%s", delivery.pk)


def _check_address(channel: Channel, address: str) -> None:
    if channel == Channel.EMAIL:
        try:
            validate_email(address)
        except ValidationError as error:
            raise RecipientRejected(
                f"{address!r} is not an e-mail address.", code="invalid_address"
            ) from error
    elif not is_phone(address):
        raise RecipientRejected(
            f"{address!r} is not a phone number with country code.", code="invalid_number"
        )


def _record_failure(
    delivery: Delivery, claim: uuid.UUID, error: Exception, state: DeliveryState
) -> bool:
    """Record a failure, unless a receipt has come meanwhile; return whether one has.

    A receipt writes its rank and then looks at the state; we write the state where there is no
    rank. So of the two that meet the second sees the first: the receipt a failure that it
    proves wrong, or we a receipt that proves us wrong.
    """
    known = error if isinstance(error, DeliveryError) else None
    if (
        _ours(delivery, claim)
        .filter(receipt_rank=0)
        .update(
            address=delivery.address,
            state=state,
            provider=known.provider if known else "",
            error_code=(known.code if known else type(error).__name__)[:50],
            error_text=text(error),
        )
    ):
        return False
    is_proven = _ours(delivery, claim).update(
        address=delivery.address,
        state=DeliveryState.SENT,
        sent_at=F("receipt_at"),
        error_code="",
        error_text="",
    )
    if not is_proven:
        logger.error("Failure of delivery=%s came after its claim: %s", delivery.pk, text(error))
    return bool(is_proven)


def _record(delivery: Delivery, claim: uuid.UUID, **outcome: object) -> None:
    """Write the outcome under our claim, also where somebody gave us up as unknown."""
    if not _ours(delivery, claim).update(address=delivery.address, **outcome):
        logger.error("Outcome of delivery=%s came after its claim: %s", delivery.pk, outcome)


def _ours(delivery: Delivery, claim: uuid.UUID) -> "QuerySet[Delivery]":
    return Delivery.objects.filter(
        pk=delivery.pk, claim=claim, state__in=(DeliveryState.SENDING, DeliveryState.UNKNOWN)
    )
