"""Dead letters: what failed for good, and whose turn is it?"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import audit, display, runbooks
from ..clock import now
from ..failuregroups import WINDOWS
from ..models import DeadLetter, FailureGroup
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus
from . import exporting, sentences
from .editing import EditingAdmin
from .job_admin import evidence
from .lists import SeenFilter, TabFilter
from .verbs import VERBS, NoteForm

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


class StatusTabs(TabFilter):
    """Whose turn it is, then how it went."""

    title = _("status")
    parameter_name = "status"
    default = "pending"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return the views on pending ones first."""
        self.request = request
        return [
            ("mine", _("mine")),
            ("unassigned", _("unassigned")),
            *((status.value, status.label) for status in DeadLetterStatus),
            ("all", _("all")),
        ]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the dead letters behind a tab."""
        pending = rows.filter(status=DeadLetterStatus.PENDING)
        match tab:
            case "all":
                return rows
            case "mine":
                return pending.filter(assignee=self.request.user.pk)
            case "unassigned":
                return pending.filter(assignee=None)
        return rows.filter(status=tab)


class QueueFilter(SeenFilter):
    """Dead letters of one queue."""

    title = _("queue")
    parameter_name = "queue"
    newest = ("status", "-died_at")


class ActorFilter(SeenFilter):
    """Dead letters of one actor."""

    title = _("job")
    parameter_name = "actor"
    newest = ("status", "-died_at")


class OwnerFilter(admin.SimpleListFilter):
    """Dead letters of one person."""

    title = _("owner")
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the staff who own any."""
        people = get_user_model()._default_manager.filter(
            Exists(DeadLetter.objects.filter(assignee=OuterRef("pk"))), is_staff=True
        )
        return [(str(person.pk), person.get_username()) for person in people.order_by("pk")[:200]]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the chosen person's."""
        known = {value for value, _label in self.lookup_choices}
        return queryset.filter(assignee=self.value()) if self.value() in known else queryset


class GivenFilter(admin.SimpleListFilter):
    """A filter that only addresses set, as the numbers of other pages do; shown while it is on."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the value that is given, in words."""
        value = self.value()
        return [(value, self.word(value))] if value else []

    def word(self, value: str) -> str:
        """Return the value for people."""
        return display.plain(value)[:100]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows with the given value; none for one that makes no sense."""
        value = self.value()
        if not value:
            return queryset
        # No stored text has NUL, and PostgreSQL refuses the very question.
        return queryset.none() if "\0" in value else self.choose(queryset, value)

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the rows with this value."""
        raise NotImplementedError


class GroupFilter(GivenFilter):
    """Dead letters of one failure group."""

    title = _("failure group")
    parameter_name = "group"

    def word(self, value: str) -> str:
        """Return its label."""
        return f"G-{display.plain(value)[:18]}"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those with its fingerprint."""
        if not (value.isascii() and value.isdecimal() and len(value) <= 18):
            return rows.none()
        group = FailureGroup.objects.filter(pk=int(value)).values("fingerprint")[:1]
        return rows.filter(fingerprint=Subquery(group))


class SinceFilter(GivenFilter):
    """Dead letters that died since a moment."""

    title = _("died since")
    parameter_name = "since"

    def word(self, value: str) -> str:
        """Return the moment to the second."""
        moment = _moment(value)
        return display.exact(moment) if moment else super().word(value)

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return the younger ones."""
        moment = _moment(value)
        return rows.filter(died_at__gte=moment) if moment else rows.none()


class ReleaseFilter(GivenFilter):
    """Dead letters of one release."""

    title = _("release")
    parameter_name = "release"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those that failed in it."""
        return rows.filter(release=value)


class HostFilter(GivenFilter):
    """Dead letters of one host."""

    title = _("host")
    parameter_name = "host"

    def choose(self, rows: "QuerySet[Any]", value: str) -> "QuerySet[Any]":
        """Return those that failed there."""
        return rows.filter(worker__startswith=f"{value}:")


class AgeFilter(admin.SimpleListFilter):
    """Dead letters by when they died: the windows of the matrix."""

    title = _("age")
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the windows."""
        return [(name, _("last %(window)s") % {"window": name}) for name in WINDOWS]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return those that died within the window."""
        length = WINDOWS.get(self.value() or "")
        return queryset.filter(died_at__gte=now() - length) if length else queryset


def _moment(text: str) -> datetime | None:
    """Read a moment from an address; a blank was a plus."""
    try:
        found = parse_datetime(text.replace(" ", "+") if text.count(" ") == 1 else text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


#: What a file of dead letters has; no payload, which is masked.
COLUMNS: tuple[exporting.Column, ...] = (
    ("id", lambda row: row.pk),
    ("job", lambda row: row.job_id),
    ("queue", lambda row: row.queue),
    ("actor", lambda row: row.actor),
    ("status", lambda row: row.status),
    ("priority", lambda row: row.get_urgency_display()),
    ("died_by", lambda row: row.died_by),
    ("error", lambda row: row.error_class),
    ("text", lambda row: row.error_excerpt),
    ("attempts", lambda row: row.attempts),
    ("died_at", lambda row: row.died_at.isoformat()),
    ("owner", lambda row: row.assignee.get_username() if row.assignee else ""),
)


class DeadLetterAdmin(EditingAdmin):
    """The desk where permanent failures are reviewed."""

    list_display = (
        "priority",
        "letter",
        "cause",
        "group",
        "died",
        "attempts_made",
        "owner",
        "age",
        "status_badge",
    )
    list_display_links = ("letter",)
    change_list_template = "queueadmin/dead_letters.html"
    list_filter = (
        StatusTabs,
        GroupFilter,
        SinceFilter,
        ReleaseFilter,
        HostFilter,
        AgeFilter,
        QueueFilter,
        ActorFilter,
        "died_by",
        OwnerFilter,
        "urgency",
    )
    ordering = ("-died_at", "-id")
    sortable_by = ("priority", "age")
    search_fields = ("id",)
    search_help_text = _("Beginning of a job id, words of the error, or a subject")
    empty_text = _(
        "Nothing here. A job that failed for good waits under “pending” until somebody "
        "requeues it or marks it permanently failed."
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the address of the list as a file."""
        view = self.admin_site.admin_view(self.export_view)
        return [
            path("export/<str:form>/", view, name="queueadmin_deadletter_export"),
            *super().get_urls(),
        ]

    def export_view(self, request: HttpRequest, form: str) -> StreamingHttpResponse:
        """Answer with the list under its filters as a file; that it was taken is audited."""
        if form not in exporting.FORMATS:
            raise Http404
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows = self.get_changelist_instance(request).queryset[: exporting.LIMIT]
        user: Any = request.user
        audit.record("export", "dead letter", [""], by=user, filters=request.GET.urlencode()[:500])
        return exporting.response(rows, COLUMNS, name="dead-letters", form=form)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[DeadLetter]":
        """Join what the list shows; leave out whatever may be large."""
        rows = DeadLetter.objects.select_related("assignee", "job").only(
            "status", "died_by", "queue", "actor", "error_class", "attempts", "deaths",
            "urgency", "died_at", "assignee", "fingerprint", "job__id", "job__max_attempts",
        )  # fmt: skip
        return rows.annotate(error_excerpt=Left("error_message", 200))

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        """Look for a job id, an error's words or a business object."""
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = (
            Q(job__id__startswith=term)
            | Q(error_class__icontains=term)
            | Q(error_message__icontains=term)
            | Q(job__subject=term)
        )
        return queryset.filter(wanted), False

    @admin.display(description=_("!"), ordering="urgency")
    def priority(self, dead_letter: DeadLetter) -> SafeString:
        """Priority as word, shape and colour; the usual one as a dash, to keep the column narrow."""
        if dead_letter.urgency == Urgency.NORMAL:
            return format_html(
                '<span title="{0}">–<span class="visually-hidden">{0}</span></span>',
                Urgency.NORMAL.label,
            )
        known = dead_letter.urgency in Urgency.values
        return display.badge(Urgency(dead_letter.urgency) if known else dead_letter.urgency)

    @admin.display(description=_("dead letter"))
    def letter(self, dead_letter: DeadLetter) -> SafeString:
        """Name, queue and short id."""
        return format_html(
            '<span class="qa-name">{}</span> <span class="qa-from">→ {}'
            ' <code class="qa-id" title="{}">#{}</code></span>',
            display.name_tag(dead_letter.actor),
            display.plain(dead_letter.queue),
            display.plain(dead_letter.job_id),
            display.plain(dead_letter.job_id[:8]),
        )

    @admin.display(description=_("cause"))
    def cause(self, dead_letter: Any) -> SafeString:
        """Class and beginning of the error."""
        return format_html(
            '<span class="qa-error"><b>{}</b> <bdi>{}</bdi></span>',
            display.plain(dead_letter.error_class),
            display.excerpt(dead_letter.error_excerpt),
        )

    def prepare(self, rows: Sequence[Any]) -> None:
        """Find the groups of the shown ones in one query."""
        groups = dict(
            FailureGroup.objects.filter(
                fingerprint__in={row.fingerprint for row in rows if row.fingerprint}
            ).values_list("fingerprint", "pk")
        )
        for row in rows:
            row.group_id = groups.get(row.fingerprint)

    @admin.display(description=_("group"))
    def group(self, dead_letter: Any) -> SafeString | str:
        """The trouble it belongs to."""
        if dead_letter.group_id is None:
            return "–"
        return format_html(
            '<a href="{}">G-{}</a>', self.group_url(dead_letter.group_id), dead_letter.group_id
        )

    def group_url(self, group: int) -> str:
        """Return the address of a failure group's page."""
        name = "admin:queueadmin_failuregroup_change"
        return reverse(name, args=[group], current_app=self.admin_site.name)

    @admin.display(description=_("died by"))
    def died(self, dead_letter: DeadLetter) -> str:
        """Why no further attempt followed."""
        return str(dead_letter.get_died_by_display())

    @admin.display(description=_("attempts"))
    def attempts_made(self, dead_letter: DeadLetter) -> str:
        """Attempts of how many."""
        return display.counted(dead_letter.attempts, dead_letter.job.max_attempts)

    @admin.display(description=_("owner"))
    def owner(self, dead_letter: DeadLetter) -> str:
        """Whose turn it is."""
        return dead_letter.assignee.get_username() if dead_letter.assignee else "–"

    @admin.display(description=_("age"), ordering="-died_at")
    def age(self, dead_letter: DeadLetter) -> SafeString | str:
        """Time since it died."""
        return display.age_tag(dead_letter.died_at)

    @admin.display(description=_("status"))
    def status_badge(self, dead_letter: DeadLetter) -> SafeString:
        """Status as word, shape and colour."""
        return display.badge(DeadLetterStatus(dead_letter.status))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one dead letter; what may be done to it has addresses of its own."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return self.render_letter(request, unquote(object_id), extra_context=extra_context)

    def render_letter(
        self,
        request: HttpRequest,
        object_id: str,
        *,
        note_form: NoteForm | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Answer with the page of one dead letter, or go back to the list if it is gone."""
        dead_letter = self.find(object_id)
        if dead_letter is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        job = dead_letter.job
        context = {
            **self.admin_site.each_context(request),
            **evidence(job, dead_letter),
            "may_reveal": self.may(request, "reveal_payload") and self.may(request, "view_job"),
            "opts": self.opts,
            "media": self.media,
            "title": display.plain(dead_letter),
            "dead_letter": dead_letter,
            "sentence": sentences.about_dead_letter(dead_letter, job),
            "may_see_job": self.may(request, "view_job"),
            "runbook": runbooks.runbook_of(dead_letter.actor),
            "is_safe": runbooks.is_safe(dead_letter.actor),
            "edit_refusal": VERBS["requeue"].refusal(dead_letter, self.may_edit(request)),
            "may_annotate": self.may(request, "annotate_deadletter"),
            "verbs": {
                name.replace("-", "_"): {
                    "verb": verb,
                    "refusal": verb.refusal(dead_letter, self.may(request, verb.permission)),
                }
                for name, verb in VERBS.items()
            },
            "group": FailureGroup.objects.filter(fingerprint=dead_letter.fingerprint)
            .only("pk", "status")
            .first(),
            "may_see_group": self.may(request, "view_failuregroup"),
            "is_mine": dead_letter.assignee_id == request.user.pk,
            "notes": list(dead_letter.notes.all()),
            "note_form": note_form or NoteForm(),
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "queueadmin/dead_letter.html", context)

    def find(self, object_id: str) -> DeadLetter | None:
        """Return the dead letter of an admin address, with all that its page shows."""
        if not (object_id.isascii() and object_id.isdecimal() and len(object_id) <= 18):
            return None
        people = ("assignee", "requeued_by", "closed_by")
        rows = DeadLetter.objects.select_related("job", *people)
        return rows.filter(pk=int(object_id)).first()
