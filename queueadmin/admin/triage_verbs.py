"""What a page can say about when a dead letter is somebody's turn, and where it is discussed."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import triage
from ..deadletters import BulkResult
from . import verbs
from .verbs import NothingForm, Verb

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def moment_input() -> forms.DateTimeInput:
    """Return a field for a date and a time, as browsers know it."""
    return forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


class DueForm(forms.Form):
    """When it is to be settled."""

    at = forms.DateTimeField(
        label=_("Due"),
        required=False,
        help_text=_("Empty takes the date away."),
        widget=moment_input(),
    )


class SnoozeForm(forms.Form):
    """What ends the snooze; whatever comes first."""

    until = forms.DateTimeField(
        label=_("Until"),
        required=False,
        widget=moment_input(),
    )
    more_failures = forms.IntegerField(
        label=_("Until so many more failures"), required=False, min_value=1, max_value=10**9
    )
    until_release = forms.BooleanField(label=_("Until another release"), required=False)
    reason = forms.CharField(label=_("Reason"), required=False, max_length=2_000)


class TicketForm(forms.Form):
    """Where the trouble is discussed."""

    url = forms.CharField(
        label=_("Address of the ticket"),
        required=False,
        max_length=500,
        help_text=_("An http or https address; empty removes it."),
    )


def _set_due(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return triage.set_due(ids, at=values["at"], by=user)


def _snooze(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return triage.snooze(ids, by=user, **values)


def _wake(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return triage.wake(ids, by=user)


def _link_ticket(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return triage.link_ticket(ids, url=values["url"], by=user)


def _will_set_due(count: int) -> str:
    return ngettext(
        "%(count)d dead letter gets a new due date.",
        "%(count)d dead letters get a new due date.",
        count,
    ) % {"count": count}


def _set(count: int) -> str:
    return ngettext(
        "Set the due date of %(count)d dead letter.",
        "Set the due date of %(count)d dead letters.",
        count,
    ) % {"count": count}


def _will_snooze(count: int) -> str:
    return ngettext(
        "%(count)d dead letter moves to “snoozed” until the first of these; without any, until "
        "somebody wakes it.",
        "%(count)d dead letters move to “snoozed” until the first of these; without any, until "
        "somebody wakes them.",
        count,
    ) % {"count": count}


def _snoozed(count: int) -> str:
    return ngettext("Snoozed %(count)d dead letter.", "Snoozed %(count)d dead letters.", count) % {
        "count": count
    }


def _will_wake(count: int) -> str:
    return ngettext(
        "%(count)d dead letter is pending again.",
        "%(count)d dead letters are pending again.",
        count,
    ) % {"count": count}


def _woken(count: int) -> str:
    return ngettext("Woke %(count)d dead letter.", "Woke %(count)d dead letters.", count) % {
        "count": count
    }


def _will_link(count: int) -> str:
    return ngettext(
        "%(count)d dead letter gets a link.", "%(count)d dead letters get a link.", count
    ) % {"count": count}


def _linked(count: int) -> str:
    return ngettext("Linked %(count)d dead letter.", "Linked %(count)d dead letters.", count) % {
        "count": count
    }


TRIAGE = (
    Verb(
        "set-due",
        triage.PERMISSION,
        _("Set due date"),
        _("Set due date"),
        DueForm,
        _set_due,
        _will_set_due,
        _set,
        use_case="set_due",
    ),
    Verb(
        "snooze",
        triage.PERMISSION,
        _("Snooze"),
        _("Snooze"),
        SnoozeForm,
        _snooze,
        _will_snooze,
        _snoozed,
        use_case="snooze",
    ),
    Verb(
        "wake",
        triage.PERMISSION,
        _("Wake"),
        _("Wake"),
        NothingForm,
        _wake,
        _will_wake,
        _woken,
        use_case="wake",
        asks=False,
    ),
    Verb(
        "link-ticket",
        triage.PERMISSION,
        _("Link ticket"),
        _("Link ticket"),
        TicketForm,
        _link_ticket,
        _will_link,
        _linked,
        use_case="link_ticket",
    ),
)
#: Every verb on dead letters, by name.
VERBS = {**verbs.VERBS, **{verb.name: verb for verb in TRIAGE}}
