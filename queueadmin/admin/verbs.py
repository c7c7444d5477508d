"""What can be done to dead letters from a page: each verb's form, words and use case."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth import get_user_model
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import deadletters, runbooks
from ..deadletters import BulkResult
from ..models import DeadLetter
from ..models.dead_letter import Urgency
from ..resolver import get_resolver
from ..states import DeadLetterStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

REASON_LENGTH = 2_000
NOTE_LENGTH = 10_000


class NothingForm(forms.Form):
    """For verbs that ask for nothing."""


class RequeueForm(forms.Form):
    """Why a repeat is worth it, if there is anything to say."""

    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=REASON_LENGTH,
        help_text=_("Optional, kept in the audit trail: what changed since it failed?"),
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class ConfirmationField(forms.CharField):
    """The name of the actor, typed by somebody who knows what a repeat does."""

    def __init__(self, actor: str) -> None:
        super().__init__(
            label=_("Type the name of the actor to confirm"),
            help_text=_("%(actor)s says that it is not safe to repeat: read what to do first.")
            % {"actor": actor},
            error_messages={"required": _("Its name is needed: %(actor)s.") % {"actor": actor}},
            widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        )
        self._actor = actor

    def clean(self, value: Any) -> str:
        """Refuse another name."""
        found: str = super().clean(value)
        if found != self._actor:
            raise forms.ValidationError(
                _("This is not its name: %(actor)s.") % {"actor": self._actor}
            )
        return found


def confirmation_of(actor: str) -> "dict[str, forms.Field]":
    """Return the field that a requeue of this actor's job needs; none where it is safe."""
    return {} if runbooks.is_safe(actor) else {"confirmed_actor": ConfirmationField(actor)}


class CloseForm(forms.Form):
    """Why nothing more is to be done."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=REASON_LENGTH,
        help_text=_("Required and kept: why is this never going to be done?"),
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class AssignForm(forms.Form):
    """Whose turn it is."""

    to: "forms.ModelChoiceField[User]" = forms.ModelChoiceField(
        label=_("Owner"), queryset=None, required=False, empty_label=_("nobody")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = get_user_model()._default_manager.filter(is_active=True, is_staff=True)
        self.fields["to"].queryset = people.order_by("pk")  # type: ignore[attr-defined]

    def clean_to(self) -> "User | None":
        """Refuse an owner who could not open the dead letter."""
        person: User | None = self.cleaned_data["to"]
        if person is not None and not get_resolver().may(person, "view_deadletter"):
            raise forms.ValidationError(_("This person may not see dead letters."))
        return person


class UrgencyForm(forms.Form):
    """How soon somebody should look."""

    urgency = forms.TypedChoiceField(
        label=_("Priority"), choices=Urgency.choices, coerce=int, initial=Urgency.HIGH
    )


class NoteForm(forms.Form):
    """What somebody found out."""

    text = forms.CharField(
        label=_("Note"), max_length=NOTE_LENGTH, widget=forms.Textarea(attrs={"rows": 3})
    )


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the console."""

    name: str
    permission: str
    title: "_StrPromise"
    button: "_StrPromise"
    form: type[forms.Form]
    run: "Callable[[list[int], dict[str, Any], User], BulkResult]"
    promise: Callable[[int], str]
    report: Callable[[int], str]
    #: Name of the use case whose rules decide what is eligible.
    use_case: str
    is_final: bool = False
    #: Harmless and undone with one press, so that nobody is asked twice.
    asks: bool = True

    def refusal(self, dead_letter: DeadLetter, is_permitted: bool) -> "_StrPromise | str":
        """Return why the verb cannot be done to this dead letter now; empty if it can."""
        if not is_permitted:
            return _("You lack the permission for this.")
        if dead_letter.status in deadletters.ELIGIBLE[self.use_case]:
            return ""
        return _REFUSALS.get(DeadLetterStatus(dead_letter.status), "")


_REFUSALS = {
    DeadLetterStatus.REQUEUED: _("It runs again already."),
    DeadLetterStatus.RECOVERED: _("Its repeat completed; nothing is left to do."),
    DeadLetterStatus.PERMANENTLY_FAILED: _("It was marked permanently failed."),
}


def _requeue(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    confirmed = values.get("confirmed_actor", "")
    return deadletters.requeue(ids, by=user, reason=values["reason"], confirmed=confirmed)


def _close(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return deadletters.close(ids, by=user, reason=values["reason"])


def _assign(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return deadletters.assign(ids, to=values["to"], by=user)


def _assign_to_me(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return deadletters.assign(ids, to=user, by=user)


def _set_urgency(ids: list[int], values: dict[str, Any], user: "User") -> BulkResult:
    return deadletters.set_urgency(ids, urgency=values["urgency"], by=user)


def _will_requeue(count: int) -> str:
    return ngettext(
        "%(count)d job gets a new round of attempts and runs at once.",
        "%(count)d jobs get a new round of attempts and run at once.",
        count,
    ) % {"count": count}


def _requeued(count: int) -> str:
    return ngettext(
        "Requeued %(count)d dead letter.", "Requeued %(count)d dead letters.", count
    ) % {"count": count}


def _will_close(count: int) -> str:
    return ngettext(
        "%(count)d dead letter is closed: its job will not run again and nobody is asked to "
        "look at it.",
        "%(count)d dead letters are closed: their jobs will not run again and nobody is asked "
        "to look at them.",
        count,
    ) % {"count": count}


def _closed(count: int) -> str:
    return ngettext(
        "Marked %(count)d dead letter permanently failed.",
        "Marked %(count)d dead letters permanently failed.",
        count,
    ) % {"count": count}


def _will_assign(count: int) -> str:
    return ngettext(
        "%(count)d dead letter gets a new owner.",
        "%(count)d dead letters get a new owner.",
        count,
    ) % {"count": count}


def _assigned(count: int) -> str:
    return ngettext(
        "Assigned %(count)d dead letter.", "Assigned %(count)d dead letters.", count
    ) % {"count": count}


def _will_set_urgency(count: int) -> str:
    return ngettext(
        "%(count)d dead letter gets a new priority.",
        "%(count)d dead letters get a new priority.",
        count,
    ) % {"count": count}


def _set(count: int) -> str:
    return ngettext(
        "Set the priority of %(count)d dead letter.",
        "Set the priority of %(count)d dead letters.",
        count,
    ) % {"count": count}


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "requeue",
            "requeue_deadletter",
            _("Requeue"),
            _("Requeue"),
            RequeueForm,
            _requeue,
            _will_requeue,
            _requeued,
            use_case="requeue",
        ),
        Verb(
            "assign-to-me",
            "assign_deadletter",
            _("Assign to me"),
            _("Assign to me"),
            NothingForm,
            _assign_to_me,
            _will_assign,
            _assigned,
            use_case="assign",
            asks=False,
        ),
        Verb(
            "assign",
            "assign_deadletter",
            _("Assign"),
            _("Assign"),
            AssignForm,
            _assign,
            _will_assign,
            _assigned,
            use_case="assign",
        ),
        Verb(
            "set-priority",
            "assign_deadletter",
            _("Set priority"),
            _("Set priority"),
            UrgencyForm,
            _set_urgency,
            _will_set_urgency,
            _set,
            use_case="set_urgency",
        ),
        Verb(
            "mark-failed",
            "close_deadletter",
            _("Mark permanently failed"),
            _("Mark permanently failed"),
            CloseForm,
            _close,
            _will_close,
            _closed,
            use_case="close",
            is_final=True,
        ),
    )
}
