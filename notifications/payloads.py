"""Reads the providers' webhooks: JSON of their making in, receipts and messages out.

Only what is understood is returned. A part that cannot be read is left out and logged, for
the provider would send the whole call again and again otherwise.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .models import ReceiptStatus
from .phones import is_phone
from .receipts import Word

logger = logging.getLogger(__name__)

WHATSAPP_STATUSES = {
    "sent": ReceiptStatus.ACCEPTED,
    "delivered": ReceiptStatus.DELIVERED,
    "read": ReceiptStatus.READ,
    "failed": ReceiptStatus.FAILED,
}
#: Meta: the recipient asked not to get marketing, or blocked us.
WHATSAPP_OPTED_OUT = "131050"
SENDGRID_STATUSES = {
    "processed": ReceiptStatus.ACCEPTED,
    "deferred": ReceiptStatus.ACCEPTED,
    "delivered": ReceiptStatus.DELIVERED,
    "open": ReceiptStatus.READ,
    "click": ReceiptStatus.READ,
    "bounce": ReceiptStatus.FAILED,
    "dropped": ReceiptStatus.FAILED,
    "unsubscribe": ReceiptStatus.DELIVERED,
    "group_unsubscribe": ReceiptStatus.DELIVERED,
    "spamreport": ReceiptStatus.DELIVERED,
}
SENDGRID_OPTED_OUT = frozenset({"unsubscribe", "group_unsubscribe", "spamreport"})
SMS_STATUSES = {
    "accepted": ReceiptStatus.ACCEPTED,
    "delivered": ReceiptStatus.DELIVERED,
    "failed": ReceiptStatus.FAILED,
    "opted_out": ReceiptStatus.FAILED,
}


class Unreadable(ValueError):
    """The call is no webhook of this provider."""


@dataclass(frozen=True, slots=True)
class Text:
    """A message somebody wrote to us."""

    message_id: str
    sender: str
    text: str
    at: datetime


Reader = Callable[[object], Iterable["Word | Text"]]


def whatsapp(data: object) -> Iterator[Word | Text]:
    """Yield what Meta reports: {"entry": [{"changes": [{"value": {"statuses", "messages"}}]}]}.

    Raises:
        Unreadable: it has another shape.
    """
    if not isinstance(data, dict) or not isinstance(data.get("entry"), list):
        raise Unreadable("entry is missing")
    for value in _values(data):
        for status in _objects(value.get("statuses")):
            yield from _understood(_whatsapp_status, status)
        for message in _objects(value.get("messages")):
            yield from _understood(_whatsapp_message, message)


def sendgrid(data: object) -> Iterator[Word]:
    """Yield what SendGrid reports: [{"event", "sg_message_id", "timestamp", …}].

    Raises:
        Unreadable: it has another shape.
    """
    if not isinstance(data, list):
        raise Unreadable("a list of events is expected")
    for event in _objects(data):
        yield from _understood(_sendgrid_event, event)


def sms(data: object) -> Iterator[Word]:
    """Yield what the gateway reports: {"id", "reference", "status", "at", "reason"}.

    Raises:
        Unreadable: it has another shape.
    """
    if not isinstance(data, dict):
        raise Unreadable("an object is expected")
    yield from _understood(_sms_status, data)


def _whatsapp_status(status: Mapping[str, Any]) -> Word:
    errors = list(_objects(status.get("errors")))
    codes = [str(error.get("code", "")) for error in errors]
    said = "; ".join(f"{error.get('code', '')} {error.get('title', '')}" for error in errors)
    return Word(
        provider="whatsapp",
        message_id=_clean(status["id"]),
        reference=_clean(status.get("biz_opaque_callback_data", "")),
        status=WHATSAPP_STATUSES[status["status"]],
        at=_time(status["timestamp"]),
        said=said or status["status"],
        opted_out=WHATSAPP_OPTED_OUT in codes,
    )


def _whatsapp_message(message: Mapping[str, Any]) -> Text:
    sender = "+" + str(message["from"]).lstrip("+")
    if not is_phone(sender):
        raise ValueError(f"{sender!r} is no phone number")
    text = message.get("text")
    body = text.get("body", "") if isinstance(text, dict) else ""
    return Text(
        message_id=_clean(message["id"]),
        sender=sender,
        text=_clean(body),
        at=_time(message["timestamp"]),
    )


def _sendgrid_event(event: Mapping[str, Any]) -> Word:
    name = event["event"]
    return Word(
        provider="sendgrid",
        # SendGrid appends ".filter…" to the id it gave when it took the message.
        message_id=_clean(event.get("sg_message_id", "")).partition(".")[0],
        reference=_clean(event.get("reference", "")),
        status=SENDGRID_STATUSES[name],
        at=_time(event["timestamp"]),
        said=f"{name} {event.get('reason', '')}".strip(),
        opted_out=name in SENDGRID_OPTED_OUT,
    )


def _sms_status(data: Mapping[str, Any]) -> Word:
    return Word(
        provider="sms",
        message_id=_clean(data.get("id", "")),
        reference=_clean(data.get("reference", "")),
        status=SMS_STATUSES[data["status"]],
        at=_time(data["at"]),
        said=f"{data['status']} {data.get('reason', '')}".strip(),
        opted_out=data["status"] == "opted_out",
    )


def _values(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in _objects(data.get("entry")):
        for change in _objects(entry.get("changes")):
            if isinstance(value := change.get("value"), dict):
                yield value


def _objects(items: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(items, list):
        yield from (item for item in items if isinstance(item, dict))


def _understood(read: Any, part: Mapping[str, Any]) -> Iterator[Any]:
    try:
        yield read(part)
    except (KeyError, ValueError, TypeError, OverflowError, OSError) as error:
        logger.info("A part of a webhook is not understood: %r", error)


def _time(seconds: object) -> datetime:
    return datetime.fromtimestamp(int(str(seconds)), UTC)


def _clean(value: object) -> str:
    # PostgreSQL refuses NUL and lone surrogates, which JSON allows.
    return str(value).replace("\0", "").encode(errors="replace").decode()
