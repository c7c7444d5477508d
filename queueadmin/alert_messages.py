"""Messages about alerts: made with them, sent by a job, or by a watcher when no job does.

Each is a row. Whoever sends it claims it first by a conditional UPDATE, so the job and a
watcher do not both send it. It is sent a second time only when a process dies between the
other side's answer and its record; the number of the message lets receivers notice that.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.mail import EmailMessage, get_connection
from django.db.models import F, Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from dramatiq import get_broker
from dramatiq.errors import ActorNotFound

from . import webhooks
from .clock import now
from .conf import settings
from .exceptions import PermanentError
from .models import Alert, AlertMessage
from .resolver import console_address
from .states import AlertKind, MessageState

logger = logging.getLogger(__name__)

#: Name of the actor that sends one message.
ACTOR = "queueadmin.send_alert"
#: After so long without being sent by its job, a watcher sends a message.
OVERDUE_AFTER = timedelta(seconds=60)
#: Longer than sending takes: whoever claimed it has died.
_CLAIM = timedelta(minutes=2)
_GIVE_UP_AFTER = timedelta(hours=24)
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=15), timedelta(minutes=15)
# A mail server that is silent must not keep a watcher for ever, as it would by default.
_MAIL_SECONDS = 15
_AT_ONCE = 20
_MOST_LINES = 50


@dataclass(frozen=True, slots=True)
class Event:
    """What is told of an alert, as it was when it happened; JSON-ready."""

    event: str
    alert: int | None
    kind: str
    subject: str
    queue: str
    text: str
    opened_at: str
    closed_at: str | None

    @classmethod
    def of(cls, alert: Alert) -> "Event":
        """Return what is told of an alert that has just opened or closed."""
        return cls(
            event="closed" if alert.closed_at else "opened",
            alert=alert.pk,
            kind=alert.kind,
            subject=alert.subject,
            queue=alert.queue,
            text=alert.text,
            opened_at=alert.opened_at.isoformat(),
            closed_at=alert.closed_at.isoformat() if alert.closed_at else None,
        )


class NotYet(Exception):
    """A message that somebody else is sending, or that failed a moment ago.

    Args:
        wait: how long to leave it.
    """

    def __init__(self, wait: timedelta) -> None:
        super().__init__(f"not before {wait} from now")
        self.wait = wait


def targets() -> list[tuple[str, str]]:
    """Return channel and address of everybody whom the settings name."""
    return [
        *((AlertMessage.Channel.EMAIL.value, address) for address in settings.ALERT_EMAILS),
        *((AlertMessage.Channel.WEBHOOK.value, url) for url in settings.ALERT_WEBHOOKS),
    ]


def tell(events: Sequence[Event]) -> None:
    """Make a message with these events for each recipient, in the caller's transaction."""
    if not events:
        return
    told = [asdict(event) for event in events]
    messages = AlertMessage.objects.bulk_create(
        AlertMessage(channel=channel, target=target, events=told, created_at=now())
        for channel, target in targets()
    )
    try:
        actor = get_broker().get_actor(ACTOR)
    except ActorNotFound:
        # A host that does not import the modules named `actors`; a watcher sends them.
        return
    for message in messages:
        actor.send(message.pk)


def send(pk: int) -> bool:
    """Send one message; False when it was sent or given up before.

    Raises:
        NotYet: somebody is sending it, or it has just failed.
    """
    at = now()
    free = Q(not_before=None) | Q(not_before__lte=at)
    claimed = AlertMessage.objects.filter(free, pk=pk, state=MessageState.WAITING).update(
        not_before=at + _CLAIM, attempts=F("attempts") + 1
    )
    if not claimed:
        waits = AlertMessage.objects.filter(pk=pk, state=MessageState.WAITING).first()
        if waits is not None and waits.not_before is not None:
            raise NotYet(max(waits.not_before - at, _FIRST_WAIT))
        return False
    message = AlertMessage.objects.get(pk=pk)
    try:
        deliver(message.channel, message.target, message.events, number=str(pk))
    except Exception as error:  # whatever a mail backend raises: recorded, and tried again
        _failed(message, error)
        return True
    AlertMessage.objects.filter(pk=pk).update(state=MessageState.SENT, sent_at=now(), error="")
    return True


def _failed(message: AlertMessage, error: Exception) -> None:
    """Record a failure.

    Raises:
        NotYet: it is to be tried again.
    """
    # What a server answers may be anything; PostgreSQL refuses NUL.
    text = f"{type(error).__name__}: {error}".replace("\0", "")[:2_000]
    logger.warning("Message %s to %s failed: %s", message.pk, message.channel, text)
    is_final = isinstance(error, PermanentError) or now() - message.created_at > _GIVE_UP_AFTER
    if is_final:
        AlertMessage.objects.filter(pk=message.pk).update(state=MessageState.FAILED, error=text)
        return
    wait = min(_FIRST_WAIT * 2 ** min(message.attempts - 1, 10), _LONGEST_WAIT)
    AlertMessage.objects.filter(pk=message.pk).update(not_before=now() + wait, error=text)
    raise NotYet(wait) from error


def send_overdue() -> int:
    """Send what no job has sent in time, as when no worker lives; return how many were tried."""
    at = now()
    overdue = AlertMessage.objects.filter(
        Q(not_before=None) | Q(not_before__lte=at),
        state=MessageState.WAITING,
        created_at__lte=at - OVERDUE_AFTER,
    ).order_by("created_at", "pk")
    tried = list(overdue.values_list("pk", flat=True)[:_AT_ONCE])
    for pk in tried:
        try:
            send(pk)
        except NotYet as later:
            logger.debug("Message %s: %s", pk, later)
    return len(tried)


def prune(before: datetime) -> int:
    """Delete messages made before a moment; return how many."""
    deleted, _ = AlertMessage.objects.filter(created_at__lt=before).delete()
    return deleted


def deliver(channel: str, target: str, events: Sequence[Mapping[str, Any]], *, number: str) -> None:
    """Send a message right now; needs no database.

    Args:
        channel: how.
        target: to whom.
        events: what is told, as `Event` has it.
        number: the same for each attempt of one message.

    Raises:
        PermanentError: it must not be sent, or not any more.
        Exception: whatever else went wrong.
    """
    if (channel, target) not in targets():
        raise PermanentError("The settings do not name this recipient any more.")
    if channel == AlertMessage.Channel.WEBHOOK:
        events = [{**event, "url": _link(event.get("alert"))} for event in events]
        body = json.dumps({"events": events}, ensure_ascii=False).encode(errors="replace")
        webhooks.post(target, body, timestamp=round(now().timestamp()), delivery=number)
        return
    since = re.sub(r"\D", "", str(events[0]["opened_at"])) if events else ""
    EmailMessage(
        subject=_subject(events),
        body=_body(events),
        to=[target],
        headers={
            "Message-ID": f"<alert.{number}.{since}@queueadmin>",
            "Auto-Submitted": "auto-generated",
        },
        connection=get_connection(timeout=_MAIL_SECONDS),
    ).send()


def _subject(events: Sequence[Mapping[str, Any]]) -> str:
    opened = [event for event in events if event["event"] == "opened"]
    if len(events) == 1:
        (event,) = events
        about = f" ({event['subject']})" if event["subject"] else ""
        label = f"{AlertKind(event['kind']).label}{about}"
        words = label if opened else _("back to normal: %(alert)s") % {"alert": label}
    else:
        words = _count(len(opened), len(events) - len(opened))
    # A header is one line.
    return " ".join(f"[queues] {words}".split())[:200]


def _count(opened: int, closed: int) -> str:
    parts = []
    if opened:
        parts.append(
            ngettext("%(count)d new alert", "%(count)d new alerts", opened) % {"count": opened}
        )
    if closed:
        parts.append(_("%(count)d back to normal") % {"count": closed})
    return ", ".join(parts)


def _body(events: Sequence[Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for event in events[:_MOST_LINES]:
        label = AlertKind(event["kind"]).label
        if event["event"] == "opened":
            lines += [
                f"{label}: {event['text']}",
                _("Since %(when)s.") % {"when": event["opened_at"]},
            ]
        else:
            lines += [
                _("Back to normal: %(alert)s (it was: %(text)s)")
                % {"alert": label, "text": event["text"]}
            ]
        lines += [link, ""] if (link := _link(event.get("alert"))) else [""]
    if len(events) > _MOST_LINES:
        lines.append(_("And %(count)d more.") % {"count": len(events) - _MOST_LINES})
    return "\n".join(lines)


def _link(alert: object) -> str:
    """Return the address of the page of alerts; empty where it cannot be told."""
    return console_address("alert_changelist") if alert is not None else ""
