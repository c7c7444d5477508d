"""Failure groups: how many troubles are there really, and who has them?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import display, editing, failuregroups, replacing, runbooks
from ..models import DeadLetter, FailureGroup, GroupNote
from ..states import DeadLetterStatus, GroupStatus
from . import sparks
from .acts import NO_PERMISSION, Act, RecordAdmin
from .lists import SeenFilter, TabFilter
from .sentences import about_group, about_snooze, evidence_of
from .triage_verbs import SnoozeForm, TicketForm
from .verbs import AssignForm, NoteForm

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

SAMPLE = 10


class StatusTabs(TabFilter):
    """Those that ask for somebody first."""

    title = _("status")
    parameter_name = "status"
    default = "needs"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return the views on what needs somebody first."""
        self.request = request
        return [
            ("needs", _("open and regressed")),
            ("mine", _("mine")),
            ("unassigned", _("unassigned")),
            ("mentions", _("mentions")),
            *((status.value, status.label) for status in GroupStatus),
            ("all", _("all")),
        ]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the groups behind a tab."""
        needs = rows.filter(status__in=FailureGroup.OPEN)
        match tab:
            case "all":
                return rows
            case "needs":
                return needs
            case "mine":
                return needs.filter(owner=self.request.user.pk)
            case "unassigned":
                return needs.filter(owner=None)
            case "mentions":
                notes = GroupNote.objects.filter(mentioned=self.request.user.pk)
                return rows.filter(pk__in=notes.values("group"))
        return rows.filter(status=tab)


class QueueFilter(SeenFilter):
    """Groups of one queue."""

    title = _("queue")
    parameter_name = "queue"
    newest = ("-last_seen_at",)


class ResolveForm(forms.Form):
    """What was done, for whoever meets it again."""

    what_was_done = forms.CharField(
        label=_("What was done"),
        max_length=2_000,
        help_text=_("Required and kept: it is shown to whoever meets this trouble again."),
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    # What failed after the page was shown is not what the person calls resolved.
    seen_deaths = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(label=_("Reason"), required=False, max_length=2_000)


def _not_open(group: FailureGroup) -> "_StrPromise | str":
    if group.status == GroupStatus.RESOLVED:
        return _("It is resolved.")
    return "" if group.is_open else _("It is snoozed already.")


def _open(group: FailureGroup) -> "_StrPromise | str":
    return _("It is open.") if group.is_open else ""


def _resolved(group: FailureGroup) -> "_StrPromise | str":
    return _("It is resolved already.") if group.status == GroupStatus.RESOLVED else ""


def _resolve(group: FailureGroup, values: dict[str, Any], user: "User") -> bool:
    return failuregroups.resolve(group.pk, by=user, **values)


def _will_resolve(group: FailureGroup) -> str:
    waiting = failuregroups.pending(group).order_by()[:10_001].count()
    left = ngettext(
        "%(count)d dead letter of it is still pending and stays so.",
        "%(count)d dead letters of it are still pending and stay so.",
        waiting,
    ) % {"count": waiting}
    promise = str(_("The group is closed; when it fails again it comes back as regressed."))
    return f"{promise} {left}" if waiting else promise


ACTS = (
    Act(
        name="resolve",
        permission="resolve_failuregroup",
        button=_("Resolve"),
        form=ResolveForm,
        initial=lambda group: {"seen_deaths": group.deaths},
        run=_resolve,
        promise=_will_resolve,
        done=_("Resolved. Its next failure brings it back as regressed."),
        refusal=_resolved,
    ),
    Act(
        name="reopen",
        permission="resolve_failuregroup",
        button=_("Reopen"),
        form=ReasonForm,
        run=lambda group, values, user: failuregroups.reopen(
            group.pk, by=user, reason=values["reason"]
        ),
        promise=lambda group: str(_("The group asks for somebody again.")),
        done=_("Opened again."),
        refusal=_open,
    ),
    Act(
        name="snooze",
        permission="triage_failuregroup",
        button=_("Snooze"),
        form=SnoozeForm,
        run=lambda group, values, user: failuregroups.snooze(group.pk, by=user, **values),
        promise=lambda group: str(
            _(
                "The group is left alone until the first of these; without any, until "
                "somebody reopens it."
            )
        ),
        done=_("Snoozed."),
        refusal=_not_open,
    ),
    Act(
        name="assign-to-me",
        permission="triage_failuregroup",
        button=_("Assign to me"),
        run=lambda group, values, user: failuregroups.assign(group.pk, to=user, by=user),
        done=_("It is yours."),
        asks=False,
    ),
    Act(
        name="assign",
        permission="triage_failuregroup",
        button=_("Assign"),
        form=AssignForm,
        run=lambda group, values, user: failuregroups.assign(group.pk, to=values["to"], by=user),
        done=_("Assigned."),
    ),
    Act(
        name="link-ticket",
        permission="triage_failuregroup",
        button=_("Link ticket"),
        form=TicketForm,
        run=lambda group, values, user: failuregroups.link_ticket(
            group.pk, url=values["url"], by=user
        ),
        done=_("The ticket is noted."),
    ),
    Act(
        name="annotate",
        permission="annotate_failuregroup",
        button=_("Add note"),
        form=NoteForm,
        run=lambda group, values, user: failuregroups.annotate(
            group.pk, text=values["text"], by=user
        ),
        done=_("Note added."),
    ),
)


class FailureGroupAdmin(RecordAdmin):
    """The matrix of cause and time, and the page of one trouble."""

    acts = ACTS
    list_display = (
        "cause",
        *(f"last_{window}" for window in failuregroups.WINDOWS),
        "first_seen",
        "last_seen",
        "owner_name",
        "status_badge",
    )
    list_display_links = ("cause",)
    list_filter = (StatusTabs, QueueFilter)
    list_per_page = 25
    ordering = ("-last_seen_at", "-id")
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = _("Words of the error, a job, or G-12")
    empty_text = _(
        "Nothing here. Permanent failures with the same cause form a group, which stays here "
        "until somebody says that its trouble is over."
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """Leave out whatever may be large."""
        rows = FailureGroup.objects.select_related("owner").defer("error_message", "resolution")
        return rows.annotate(error_excerpt=Left("error_message", 200))

    def get_queryset_of_one(self) -> "QuerySet[Any]":
        """Join the people of the page."""
        return FailureGroup.objects.select_related("owner", "resolved_by")

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        """Look for a label, or words of the error or job."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.upper().startswith("G-") and term[2:].isdecimal() and len(term) < 20:
            return queryset.filter(pk=int(term[2:])), False
        found = (
            queryset.filter(error_class__icontains=term)
            | queryset.filter(error_message__icontains=term)
            | queryset.filter(actor__icontains=term)
        )
        return found, False

    def prepare(self, rows: Sequence[Any]) -> None:
        """Count the shown groups' failures in one query."""
        matrix = failuregroups.matrix(rows)
        for group in rows:
            group.cells = {cell.window: cell for cell in matrix[group.pk]}

    @admin.display(description=_("cause"))
    def cause(self, group: Any) -> SafeString:
        """Error, its text, and whose job it is."""
        return format_html(
            '<span class="qa-error"><b>{}</b> <bdi>{}</bdi></span>'
            '<span class="qa-from"><bdi>{}</bdi> <code class="qa-id">{}</code></span>',
            display.name_tag(group.error_class or _("unknown error")),
            display.excerpt(group.error_excerpt),
            display.name_tag(group.actor),
            group.label,
        )

    @admin.display(description=_("first seen"))
    def first_seen(self, group: FailureGroup) -> SafeString | str:
        """Release, or time where releases are not stamped."""
        if not group.first_release:
            return display.time_tag(group.first_seen_at)
        words = str(_("release %(name)s") % {"name": display.plain(group.first_release)})
        return display.time_tag(group.first_seen_at, words)

    @admin.display(description=_("last seen"))
    def last_seen(self, group: FailureGroup) -> SafeString | str:
        """Relative time."""
        return display.time_tag(group.last_seen_at)

    @admin.display(description=_("owner"))
    def owner_name(self, group: FailureGroup) -> str:
        """Who has it."""
        return group.owner.get_username() if group.owner else display.NOTHING

    @admin.display(description=_("status"))
    def status_badge(self, group: FailureGroup) -> SafeString:
        """Status as word, shape and colour."""
        return display.badge(GroupStatus(group.status))

    def cell(self, group: Any, window: str) -> SafeString | str:
        """A number of the matrix, linked to the dead letters it counts."""
        found = group.cells[window]
        if not found.count:
            return format_html('<span class="qa-none">{}</span>', 0)
        return format_html(
            '<a href="{}">{}{}</a>',
            letters_url(self.admin_site.name, group=group.pk, age=window, status="all"),
            f"{found.count:,}",
            "+" if found.is_more else "",
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one trouble; what may be done about it has addresses of its own."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        group = self.find(unquote(object_id))
        if group is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        site = self.admin_site.name
        outbreak = failuregroups.outbreak(group)
        letters = DeadLetter.objects.filter(fingerprint=group.fingerprint)
        waiting = failuregroups.pending(group).order_by()[: failuregroups.COUNT_LIMIT + 1].count()
        self.prepare([group])
        line = failuregroups.line(group)
        context = {
            **self.page_context(request, display.plain(group.label)),
            "group": group,
            "runbook": runbooks.runbook_of(group.actor),
            "is_safe": runbooks.is_safe(group.actor),
            "sentence": about_group(group, outbreak),
            "facts": [
                (text, letters_url(site, group=group.pk, status="all", **query))
                for text, query in evidence_of(outbreak)
            ],
            "cells": [(window, self.cell(group, window)) for window in failuregroups.WINDOWS],
            "spark": sparks.bars((0, count) for count in line),
            "most": max(line),
            "waiting": waiting,
            "waiting_url": letters_url(site, group=group.pk, status=DeadLetterStatus.PENDING.value),
            "all_url": letters_url(site, group=group.pk, status="all"),
            "requeue_url": reverse("admin:queueadmin_requeueoperation_new", current_app=site)
            + f"?group={group.pk}",
            "requeue_refusal": self._requeue_refusal(request, waiting),
            "change_refusal": self._change_refusal(request, waiting),
            "sample": letters.for_list().order_by("-died_at")[:SAMPLE],
            "snooze": about_snooze(group),
            "past": failuregroups.past(group),
            "notes": list(group.notes.all()),
            "note_form": NoteForm(),
            "buttons": self.buttons(request, group),
            "is_mine": group.owner_id == request.user.pk,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "queueadmin/failure_group.html", context)

    def _requeue_refusal(self, request: HttpRequest, waiting: int) -> "_StrPromise | str":
        if not self.may(request, "requeue_deadletter"):
            return NO_PERMISSION
        return "" if waiting else _("None of its dead letters is pending.")

    def _change_refusal(self, request: HttpRequest, waiting: int) -> "_StrPromise | str":
        needed = (replacing.PERMISSION, editing.PERMISSION)
        if not all(self.may(request, verb) for verb in needed):
            return NO_PERMISSION
        return self._requeue_refusal(request, waiting)


def _add_columns() -> None:
    """Give the list a column per window of the matrix."""
    for window in failuregroups.WINDOWS:

        def column(self: FailureGroupAdmin, group: Any, window: str = window) -> Any:
            return self.cell(group, window)

        column.__doc__ = "Failures of one window."
        column.short_description = window  # type: ignore[attr-defined]
        setattr(FailureGroupAdmin, f"last_{window}", column)


_add_columns()


def letters_url(site: str, **query: Any) -> str:
    """Return the address of the dead letters with these filters."""
    address = reverse("admin:queueadmin_deadletter_changelist", current_app=site)
    return f"{address}?{urlencode(query)}"
