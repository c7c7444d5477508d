"""The daily digest: one mail a day to everybody who owns something, about what they own.

Who gets it for which day is claimed by a conditional UPDATE before the mail is sent, so two
jobs, or a job that is run again, do not send it twice. A mail that the server refused is
given free again; one whose process died while sending is not, and comes the next day.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.db.models import Q
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import audit
from .clock import now
from .models import DeadLetter, Digest, FailureGroup
from .resolver import console_address, get_resolver
from .states import DeadLetterStatus, GroupStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.core.mail.backends.base import BaseEmailBackend

logger = logging.getLogger(__name__)

TARGET = "digest"
_DAY = timedelta(days=1)
_NAMED = 10
_MOST = 1_000
_GROUPS = (GroupStatus.OPEN, GroupStatus.REGRESSED, GroupStatus.SNOOZED)


class SomeUnsent(Exception):
    """The mail server refused some digests; a later attempt sends these."""


@dataclass(frozen=True, slots=True)
class Owned:
    """What somebody owns; lists end at `_MOST`."""

    pending: Sequence[DeadLetter]
    #: Those of them that died in the last 24 hours, and those whose due date is over.
    new: int
    overdue: int
    requeued: int
    groups: Sequence[FailureGroup]
    #: Names of what comes back within the next 24 hours.
    waking: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.pending or self.requeued or self.groups or self.waking)


def owned_by(user: "User", at: datetime) -> Owned:
    """Return what somebody owns and is not done with."""
    mine = DeadLetter.objects.filter(assignee=user).for_list()
    pending = list(mine.awake().order_by("-urgency", "died_at", "pk")[:_MOST])
    soon = Q(snoozed_until__lte=at + _DAY)
    groups = list(
        FailureGroup.objects.filter(owner=user, status__in=_GROUPS).order_by("-last_seen_at")[
            :_MOST
        ]
    )
    waking = [
        *(group.label for group in groups if _wakes(group, at)),
        *map(str, mine.snoozed().filter(soon).order_by("snoozed_until", "pk")[:_NAMED]),
    ]
    return Owned(
        pending=pending,
        new=sum(letter.died_at > at - _DAY for letter in pending),
        overdue=sum(letter.due_at is not None and letter.due_at < at for letter in pending),
        requeued=mine.filter(status=DeadLetterStatus.REQUEUED).order_by()[:_MOST].count(),
        groups=[group for group in groups if group.is_open],
        waking=waking,
    )


def _wakes(group: FailureGroup, at: datetime) -> bool:
    is_snoozed = group.status == GroupStatus.SNOOZED and group.snoozed_until is not None
    return is_snoozed and group.snoozed_until <= at + _DAY  # type: ignore[operator]


def send_all() -> int:
    """Send today's digest to everybody who owns something and wants it; return how many.

    Raises:
        SomeUnsent: some could not be sent; the others were.
    """
    at, sent, failed = now(), 0, 0
    today = localtime(at).date()
    connection = get_connection()
    for user in _owners():
        owned = owned_by(user, at)
        before = _claim(user, today) if owned else None
        if before is None:
            continue
        try:
            _mail(user, owned, today, connection)
        except Exception:  # of whatever mail backend; the others' digests go on
            logger.exception("Could not send the digest of user=%s", user.pk)
            Digest.objects.filter(user=user, last_day=today).update(last_day=before[0])
            failed += 1
        else:
            sent += 1
    if failed:
        raise SomeUnsent(f"{failed} digests could not be sent, {sent} were.")
    return sent


def _owners() -> "Iterator[User]":
    """Yield active staff with an address who own something and may see it."""
    letters = DeadLetter.objects.open().exclude(assignee=None).order_by().values("assignee")
    groups = FailureGroup.objects.filter(status__in=_GROUPS).exclude(owner=None).values("owner")
    people = get_user_model()._default_manager.filter(
        Q(pk__in=letters) | Q(pk__in=groups), is_active=True, is_staff=True
    )
    resolver = get_resolver()
    for person in people.order_by("pk"):
        if getattr(person, "email", "") and resolver.may(person, "view_deadletter"):
            yield person


def _claim(user: "User", today: date) -> tuple[date | None] | None:
    """Take the day for a user; return the day before it, None when it is taken or not wanted."""
    row, _is_new = Digest.objects.get_or_create(user=user)
    before = row.last_day
    free = Q(last_day=None) | Q(last_day__lt=today)
    taken = Digest.objects.filter(free, user=user, is_wanted=True).update(last_day=today)
    return (before,) if taken else None


def _mail(user: "User", owned: Owned, today: date, connection: "BaseEmailBackend") -> None:
    EmailMessage(
        subject=_subject(owned),
        body=_body(owned),
        to=[user.email],
        headers={
            "Message-ID": f"<digest.{user.pk}.{today:%Y%m%d}@queueadmin>",
            "Auto-Submitted": "auto-generated",
        },
        connection=connection,
    ).send()


def _subject(owned: Owned) -> str:
    number = len(owned.pending)
    text = ngettext(
        "[queues] Yours today: %(count)d dead letter, %(groups)d groups",
        "[queues] Yours today: %(count)d dead letters, %(groups)d groups",
        number,
    )
    return text % {"count": number, "groups": len(owned.groups)}


def _body(owned: Owned) -> str:
    lines = [
        _("%(count)d dead letters wait for you: %(new)d new since yesterday, %(overdue)d overdue.")
        % {"count": len(owned.pending), "new": owned.new, "overdue": owned.overdue},
        *(
            f"  - {letter}: {letter.error_class} ({letter.queue})"
            for letter in owned.pending[:_NAMED]
        ),
    ]
    if len(owned.pending) > _NAMED:
        lines.append(_("  and %(count)d more") % {"count": len(owned.pending) - _NAMED})
    if owned.requeued:
        lines.append(_("%(count)d of yours run again.") % {"count": owned.requeued})
    if owned.groups:
        lines += ["", _("Failure groups of yours that are open:")]
        lines += [f"  - {group} ({group.get_status_display()})" for group in owned.groups[:_NAMED]]
    if owned.waking:
        lines += ["", _("No longer snoozed by tomorrow:")]
        lines += [f"  - {name}" for name in owned.waking[:_NAMED]]
    lines += ["", console_address("deadletter_changelist", query="?status=mine")]
    lines += [_("You get this once a day while you own something. To stop it:")]
    lines += [console_address("alert_digest")]
    return "\n".join(lines)


def is_wanted_by(user: "User") -> bool:
    """Return whether somebody gets the digest on days on which they own something."""
    return not Digest.objects.filter(user=user, is_wanted=False).exists()


def want(is_wanted: bool, *, by: "User") -> bool:
    """Choose for oneself whether to get it; False when it was so already."""
    with transaction.atomic():
        Digest.objects.get_or_create(user=by)
        changed = Digest.objects.filter(user=by, is_wanted=not is_wanted).update(
            is_wanted=is_wanted
        )
        if changed:
            verb = "want digest" if is_wanted else "stop digest"
            audit.record(verb, TARGET, [by.pk], by=by)
    return bool(changed)
