"""Records that only grow: who did what, and what recovery found."""

import json
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import display, recovery
from ..clock import now
from ..models import (
    AuditEntry,
    DeadLetter,
    FailureGroup,
    Job,
    RecoveryRun,
    RequeueOperation,
)
from .exporting import ExportingAdmin
from .lists import ConsoleAdmin

_MODELS: dict[str, type[Model]] = {
    "job": Job,
    "dead letter": DeadLetter,
    "failure group": FailureGroup,
    "requeue operation": RequeueOperation,
}


#: Verb, and how it is called in the list and its filter.
_VERBS = {
    "requeue": _("requeue"),
    "edit": _("edit and requeue"),
    "enqueue": _("enqueue by hand"),
    "cancel": _("cancel"),
    "reschedule": _("reschedule"),
    "retry": _("run a job now"),
    "close": _("mark permanently failed"),
    "assign": _("assign"),
    "set_urgency": _("set priority"),
    "annotate": _("write a note"),
    "reveal": _("reveal a payload"),
    "erase": _("erase personal data"),
    "clean": _("clean"),
    "remove": _("remove a job"),
    "recover": _("run recovery"),
    "quiet": _("quiet a worker"),
    "resolve": _("resolve"),
    "reopen": _("reopen"),
    "snooze": _("snooze"),
    "wake": _("end a snooze"),
    "set_due": _("set due date"),
    "link ticket": _("link a ticket"),
    "add rule": _("add a rule"),
    "change rule": _("change a rule"),
    "delete rule": _("delete a rule"),
    "create": _("begin a requeue"),
    "pause": _("pause"),
    "resume": _("resume"),
    "acknowledge": _("acknowledge an alert"),
    "stop digest": _("stop the daily digest"),
    "want digest": _("want the daily digest"),
    "abort": _("abort"),
    "stop": _("stop"),
    "limit": _("change limits"),
    "run now": _("run now"),
    "export": _("export"),
}


class VerbFilter(admin.SimpleListFilter):
    """Entries of one verb."""

    title = _("what")
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the verbs of the console."""
        return list(_VERBS.items())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the entries of the chosen verb."""
        known = {value for value, _label in self.lookup_choices}
        return queryset.filter(verb=self.value()) if self.value() in known else queryset


class AuditEntryAdmin(ExportingAdmin):
    """Who did what to which record and why; nobody edits it."""

    columns = (
        ("at", lambda entry: entry.at.isoformat()),
        ("who", lambda entry: entry.user_name),
        ("verb", lambda entry: entry.verb),
        ("kind", lambda entry: entry.target_type),
        ("id", lambda entry: entry.target_id),
        ("why", lambda entry: entry.reason),
        ("detail", lambda entry: json.dumps(entry.detail, ensure_ascii=False)),
    )
    exported_as = "audit trail"

    list_display = ("when", "who", "what", "target", "why", "facts")
    list_display_links = None
    list_filter = (VerbFilter, "at")
    ordering = ("-at", "-id")
    sortable_by = ()
    search_fields = ("user_name", "target_id", "reason")
    search_help_text = _("Who, the id of the record, or a word of the reason")
    empty_text = _("Every requeue, note, assignment and decision of staff is kept here.")

    @admin.display(description=_("when"))
    def when(self, entry: AuditEntry) -> SafeString | str:
        """Relative time."""
        return display.time_tag(entry.at)

    @admin.display(description=_("who"))
    def who(self, entry: AuditEntry) -> str:
        """Name of the person or program."""
        return display.plain(entry.user_name)

    @admin.display(description=_("what"))
    def what(self, entry: AuditEntry) -> str:
        """The verb, by the name that the filter gives it."""
        return str(_VERBS.get(entry.verb) or display.plain(entry.verb))

    @admin.display(description=_("on what"))
    def target(self, entry: AuditEntry) -> SafeString:
        """Kind and id, linked where it has a page."""
        text = f"{entry.target_type} {display.plain(entry.target_id)}"
        model = _MODELS.get(entry.target_type)
        if model is None or not entry.target_id:
            return format_html("{}", text)
        address = f"admin:queueadmin_{model._meta.model_name}_change"
        site = self.admin_site.name
        return format_html(
            '<a href="{}">{}</a>',
            reverse(address, args=[quote(entry.target_id)], current_app=site),
            text,
        )

    @admin.display(description=_("why"))
    def why(self, entry: AuditEntry) -> SafeString:
        """Beginning of the reason."""
        return format_html("<bdi>{}</bdi>", display.excerpt(entry.reason))

    @admin.display(description=_("detail"))
    def facts(self, entry: AuditEntry) -> SafeString:
        """The facts kept with the act."""
        # PostgreSQL does not keep the order in which they were written.
        facts = sorted(entry.detail.items()) if isinstance(entry.detail, dict) else ()
        text = " · ".join(f"{name.replace('_', ' ')}: {_said(value)}" for name, value in facts)
        return format_html('<span class="qa-facts">{}</span>', display.excerpt(text))


def _said(value: Any) -> str:
    """Return a fact in words where it is simple, as JSON where it is not."""
    if isinstance(value, bool):
        return str(_("yes") if value else _("no"))
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class RecoveryRunAdmin(ConsoleAdmin):
    """What each comparison of ledger and broker found and did."""

    list_display = ("started", "outcome", "took", "found_counts", "steps", "failure")
    list_display_links = None
    has_links = False
    ordering = ("-started_at",)
    sortable_by = ()
    empty_text = _(
        "Recovery compares the ledger with the broker every few minutes and writes a row here. "
        "Start the scheduler to see one."
    )

    @admin.display(description=_("started"))
    def started(self, run: RecoveryRun) -> SafeString | str:
        """Relative time."""
        return display.time_tag(run.started_at)

    @admin.display(description=_("outcome"))
    def outcome(self, run: RecoveryRun) -> SafeString:
        """Whether it ended well."""
        if run.error:
            return display.badge("failed", _("failed"))
        if run.finished_at is None:
            return display.badge("running", _("running"))
        return display.badge("done", _("done"))

    @admin.display(description=_("took"))
    def took(self, run: RecoveryRun) -> str:
        """Length of the run, so far if it has not ended."""
        return display.span((run.finished_at or now()) - run.started_at)

    @admin.display(description=_("found"))
    def found_counts(self, run: RecoveryRun) -> str:
        """Counts per category, zeros left out."""
        found = run.found if isinstance(run.found, dict) else {}
        parts = [
            f"{display.plain(name)} {count}" for name, count in recovery.in_order(found) if count
        ]
        return " · ".join(parts) or str(_("nothing"))

    @admin.display(description=_("took, by category"))
    def steps(self, run: RecoveryRun) -> SafeString:
        """How long each category took; nothing of a run before that was recorded."""
        took = run.durations_ms if isinstance(run.durations_ms, dict) else {}
        parts = [
            f"{display.plain(name)} {display.span(timedelta(milliseconds=ms))}"
            for name, ms in recovery.in_order(took)
            if isinstance(ms, int | float)
        ]
        if not parts:
            return display.NOTHING
        return format_html('<span class="qa-facts">{}</span>', " · ".join(parts))

    @admin.display(description=_("error"))
    def failure(self, run: RecoveryRun) -> SafeString:
        """Beginning of the error."""
        return format_html("<bdi>{}</bdi>", display.excerpt(run.error))
