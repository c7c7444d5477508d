"""Dead letters: what failed for good, and whose turn is it?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
)
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import display, runbooks
from ..models import DeadLetter, FailureGroup
from ..models.dead_letter import Urgency
from ..states import DeadLetterStatus, GroupStatus
from . import sentences
from .dead_letter_filters import (
    ActorFilter,
    AgeFilter,
    GroupFilter,
    HostFilter,
    OwnerFilter,
    QueueFilter,
    ReleaseFilter,
    SinceFilter,
    StatusTabs,
)
from .editing import EditingAdmin
from .exporting import Column, ExportingAdmin
from .job_admin import evidence
from .triage_verbs import VERBS
from .verbs import NoteForm

if TYPE_CHECKING:
    pass


#: What a file of dead letters has; no payload, which is masked.
COLUMNS: tuple[Column, ...] = (
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
    ("due_at", lambda row: row.due_at.isoformat() if row.due_at else ""),
    ("ticket", lambda row: row.ticket_url),
    ("owner", lambda row: row.assignee.get_username() if row.assignee else ""),
)


class DeadLetterAdmin(ExportingAdmin, EditingAdmin):
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
    columns = COLUMNS
    exported_as = "dead letters"
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

    def get_queryset(self, request: HttpRequest) -> "QuerySet[DeadLetter]":
        """Join what the list shows; leave out whatever may be large."""
        rows = DeadLetter.objects.select_related("assignee", "job").only(
            "status", "died_by", "queue", "actor", "error_class", "attempts", "deaths",
            "urgency", "died_at", "due_at", "snoozed_at", "ticket_url", "assignee", "fingerprint",
            "job__id", "job__max_attempts",
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
                '<span class="qa-blank" title="{0}">–<span class="visually-hidden">{0}</span></span>',
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
            display.name_tag(dead_letter.error_class),
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
            return display.NOTHING
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
        return dead_letter.assignee.get_username() if dead_letter.assignee else display.NOTHING

    @admin.display(description=_("age"), ordering="-died_at")
    def age(self, dead_letter: DeadLetter) -> SafeString | str:
        """Time since it died, and how late that is."""
        if not dead_letter.is_open:
            return display.age_tag(dead_letter.died_at)
        if dead_letter.due_at is None:
            return display.aging_tag(dead_letter.died_at)
        late = display.due_tag(dead_letter.due_at)
        return format_html(
            '{} <span class="qa-late">{}</span>', display.age_tag(dead_letter.died_at), late
        )

    @admin.display(description=_("status"))
    def status_badge(self, dead_letter: DeadLetter) -> SafeString:
        """Status as word, shape and colour."""
        if dead_letter.is_snoozed:
            return display.badge(GroupStatus.SNOOZED)
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
            "snooze": sentences.about_snooze(dead_letter),
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
            .only("pk", "status", "first_release")
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
