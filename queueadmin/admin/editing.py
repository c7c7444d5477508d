"""The page of edit and requeue: a form from the actor's signature, then what it would change."""

import hashlib
import json
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect

from .. import display, editing
from ..editing import Change, Draft, NotEditable
from ..exceptions import InvalidMessage, NotPermitted
from ..models import DeadLetter
from .acting import ActingAdmin
from .verbs import confirmation_of

_LONGEST = 1_000_000


class EditForm(forms.Form):
    """One field per argument that may be edited, and a reason."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=1_000,
        required=False,
        help_text=_("Optional; it is kept in the audit trail."),
    )

    def __init__(self, draft: Draft, actor: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draft = draft
        fields: dict[str, forms.Field] = {}
        for number, argument in enumerate(draft.arguments):
            fields[f"argument-{number}"] = forms.CharField(
                label=argument.name,
                initial=argument.text,
                required=False,
                strip=False,
                max_length=_LONGEST,
                disabled=argument.is_hidden,
                help_text=_help(argument),
                widget=forms.Textarea(
                    attrs={
                        "rows": min(max(argument.text.count("\n") + 1, 1), 12),
                        "spellcheck": "false",
                        "dir": "auto",
                    }
                ),
            )
        reason = {"reason": self.fields["reason"]}
        self.fields = {**fields, **reason, **confirmation_of(actor)}

    def texts(self) -> dict[str, str]:
        """Return the new texts by the arguments' names."""
        return {
            argument.name: self.cleaned_data[f"argument-{number}"]
            for number, argument in enumerate(self.draft.arguments)
            if not argument.is_hidden
        }

    def blame(self, error: InvalidMessage) -> None:
        """Show an error at the argument that it is about."""
        # It may name a place inside, such as items[0].price.
        named = (error.field or "").replace("[", ".").split(".")[0]
        for number, argument in enumerate(self.draft.arguments):
            if argument.name == named:
                self.add_error(f"argument-{number}", str(error))
                return
        self.add_error(None, str(error))


def _help(argument: editing.Argument) -> str:
    if argument.is_hidden:
        return str(_("Masked, or no JSON: it stays as it is."))
    kind = _("text, as it is") if argument.is_plain else _("JSON")
    expected = argument.expected or _("anything")
    words = f"{expected} · {kind}"
    if not argument.is_given and argument.default:
        words += " · " + _("not given; empty means the default, %s") % argument.default
    elif not argument.is_given:
        words += f" · {_('not given; leave it empty for the default')}"
    return words


class EditingAdmin(ActingAdmin):
    """Adds the address of edit and requeue."""

    def get_urls(self) -> list[URLPattern]:
        """Add one address per dead letter."""
        view = self.admin_site.admin_view(self.edit_view)
        return [
            path("<int:pk>/edit/", view, name="queueadmin_deadletter_edit"),
            *super().get_urls(),
        ]

    def may_edit(self, request: HttpRequest) -> bool:
        """Return whether this person may edit and requeue."""
        return self.may(request, "edit_deadletter") and self.may(request, "requeue_deadletter")

    @method_decorator(csrf_protect)
    def edit_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask for the arguments, show what would change, and do it once that was seen."""
        if not (self.has_view_permission(request) and self.may_edit(request)):
            raise PermissionDenied
        letter = DeadLetter.objects.select_related("job").filter(pk=pk).first()
        if letter is None:
            raise Http404
        back = self._address("change", pk)
        changes: tuple[Change, ...] = ()
        seen = ""
        try:
            if not letter.can_requeue:
                raise NotEditable(str(_("It is not pending any more; somebody was faster.")))
            draft = editing.draft(letter.job)
            form = EditForm(draft, letter.actor, request.POST if request.method == "POST" else None)
            if request.method == "POST" and form.is_valid():
                if request.POST.get("version") != draft.version:
                    raise NotEditable(str(_("Somebody else has edited it meanwhile; look again.")))
                changes = editing.preview(letter.job, form.texts())
                seen = _digest(form.texts())
                # Confirmed is only what was shown: a value changed since then is shown first.
                if changes and request.POST.get("seen") == seen and "confirmed" in request.POST:
                    self._requeue(request, pk, form)
                    return HttpResponseRedirect(back)
        except NotEditable as error:
            self.message_user(request, str(error), messages.WARNING)
            return HttpResponseRedirect(back)
        except InvalidMessage as error:
            form.blame(error)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Edit and requeue"),
            "dead_letter": letter,
            "form": form,
            "draft": draft,
            "changes": changes,
            "was_asked": request.method == "POST" and not form.errors,
            "seen": seen,
            "back_url": back,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "queueadmin/edit.html", context)

    def _requeue(self, request: HttpRequest, pk: int, form: EditForm) -> None:
        user: Any = request.user
        try:
            changes = editing.requeue(
                pk,
                form.texts(),
                version=form.draft.version,
                by=user,
                reason=form.cleaned_data["reason"],
                confirmed=form.cleaned_data.get("confirmed_actor", ""),
            )
        except NotPermitted as error:
            raise PermissionDenied from error
        names = ", ".join(display.plain(change.name) for change in changes)
        self.message_user(
            request, _("Requeued with changed %(names)s.") % {"names": names}, messages.SUCCESS
        )


def _digest(texts: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()
