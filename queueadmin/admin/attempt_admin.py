"""Attempts that failed lately, over all jobs: trouble before it becomes dead letters."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import display
from ..models import Attempt
from ..states import Outcome
from .lists import ConsoleAdmin, SeenFilter


class _FailedFilter(SeenFilter):
    newest = ("-pk",)

    def recent(self, model_admin: Any) -> "QuerySet[Any]":
        """Return the newest attempts that were to be retried."""
        return Attempt.objects.filter(outcome=Outcome.RETRYING).order_by(*self.newest)


class QueueFilter(_FailedFilter):
    """Attempts of jobs of one queue."""

    title = _("queue")
    parameter_name = "job__queue"


class ErrorFilter(_FailedFilter):
    """Attempts with one error."""

    title = _("error")
    parameter_name = "error_class"


class AttemptAdmin(ConsoleAdmin):
    """What failed lately; each leads to its job."""

    list_display = ("attempt_of", "queue", "made", "error", "took", "next_in", "when")
    list_display_links = None
    list_filter = (QueueFilter, ErrorFilter)
    ordering = ("-pk",)
    sortable_by = ()
    empty_text = _(
        "Attempts that fail and are tried again appear here, before anything becomes a dead "
        "letter. Nothing was retried lately."
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Attempt]":
        """Return attempts that another one follows; last ones are dead letters, by another page."""
        retried = Attempt.objects.filter(outcome=Outcome.RETRYING)
        rows = retried.select_related("job").only(
            "number", "outcome", "started_at", "duration_ms", "delay_ms", "error_class",
            "job__id", "job__queue", "job__actor", "job__max_attempts",
        )  # fmt: skip
        return rows.annotate(error_excerpt=Left("error_message", 200))

    @admin.display(description=_("attempt of"))
    def attempt_of(self, attempt: Attempt) -> SafeString:
        """The job, linked for whoever may open it."""
        job = attempt.job
        address = reverse(
            "admin:queueadmin_job_change", args=[quote(job.pk)], current_app=self.admin_site.name
        )
        return format_html(
            '<a href="{}"><span class="qa-name">{}</span> <code class="qa-id">#{}</code></a>',
            address,
            display.name_tag(job.actor),
            display.plain(job.short_id),
        )

    @admin.display(description=_("queue"))
    def queue(self, attempt: Attempt) -> str:
        """Queue of the job."""
        return display.plain(attempt.job.queue)

    @admin.display(description=_("attempt"))
    def made(self, attempt: Attempt) -> str:
        """Which of how many."""
        return display.counted(attempt.number, attempt.job.max_attempts)

    @admin.display(description=_("error"))
    def error(self, attempt: Any) -> SafeString:
        """Class and beginning of the error."""
        return format_html(
            '<span class="qa-error"><b>{}</b> <bdi>{}</bdi></span>',
            display.name_tag(attempt.error_class),
            display.excerpt(attempt.error_excerpt),
        )

    @admin.display(description=_("ran"))
    def took(self, attempt: Attempt) -> str:
        """How long it ran."""
        return display.span(attempt.duration)

    @admin.display(description=_("next after"))
    def next_in(self, attempt: Attempt) -> str:
        """The wait that follows it."""
        return display.span(attempt.delay) if attempt.delay is not None else display.NOTHING

    @admin.display(description=_("started"))
    def when(self, attempt: Attempt) -> SafeString | str:
        """Relative time."""
        return display.time_tag(attempt.started_at)
