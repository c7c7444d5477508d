"""What a guarded requeue asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from .. import display, operations
from ..replacing import Replacement
from .triage_verbs import moment_input

_LONGEST = 10_000


class OperationForm(forms.Form):
    """What a guarded requeue is called, why it is worth it, and how careful it is."""

    name = forms.CharField(
        label=_("Name"), max_length=100, help_text=_("What people will call it.")
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=2_000,
        help_text=_("Kept in the audit trail: what changed since they failed?"),
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    canary = forms.IntegerField(
        label=_("Canary"),
        min_value=0,
        max_value=10_000,
        initial=10,
        help_text=_("So many run first; the rest waits for how they end. 0 for none."),
    )
    stop_at_percent = forms.IntegerField(
        label=_("Stop at, % failed again"), min_value=1, max_value=100, initial=20
    )
    rate = forms.FloatField(
        label=_("Jobs per second"), min_value=0.01, max_value=operations.MAX_RATE, initial=20
    )
    start_at = forms.DateTimeField(
        label=_("Start"),
        required=False,
        help_text=_("Empty for now."),
        widget=moment_input(),
    )

    def replacement(self) -> Replacement | None:
        """Return what it changes of the jobs' arguments; nothing."""
        return None


class ReplaceForm(OperationForm):
    """Beside that, which argument becomes what."""

    argument = forms.ChoiceField(label=_("Argument"))
    before = forms.CharField(label=_("Old value"), required=False, strip=False, max_length=_LONGEST)
    after = forms.CharField(label=_("New value"), required=False, strip=False, max_length=_LONGEST)
    field_order = ("argument", "before", "after")

    def __init__(
        self, seen: Mapping[str, Sequence[tuple[str, int]]], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        argument: Any = self.fields["argument"]
        argument.choices = [(name, display.plain(name)) for name in seen]
        self.fields["before"].help_text = " · ".join(
            f"{display.plain(name)}: " + ", ".join(_seen(text, count) for text, count in values)
            for name, values in seen.items()
        )
        self.fields["after"].help_text = _(
            "As on the page of edit and requeue: text as it is where the actor takes text, else "
            "JSON. Only jobs with exactly the old value are changed."
        )

    def replacement(self) -> Replacement | None:
        """Return what was filled in."""
        values = self.cleaned_data
        return Replacement(
            values["argument"],
            # Browsers send lines as CR LF.
            values["before"].replace("\r\n", "\n"),
            values["after"].replace("\r\n", "\n"),
        )


def _seen(text: str, count: int) -> str:
    shown = display.excerpt(text, 40) if text else _t("nothing")
    return f"{shown} (×{count})"
