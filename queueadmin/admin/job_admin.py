"""Jobs: where is it, what happened, what comes next?"""

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from .. import display, listing, revealing
from ..clock import now
from ..exceptions import NotPermitted
from ..models import DeadLetter, Job
from ..states import RUNNABLE, JobState
from . import history, lineage, payload, sentences
from .job_acting import ActingJobAdmin
from .lists import BoundedPaginator, SeenFilter, TabFilter

if TYPE_CHECKING:
    from django.core.paginator import Paginator
    from django.utils.functional import _StrPromise

_LOOKS_LIKE_ID = re.compile(r"[0-9a-fA-F-]{4,64}")


class StateTabs(TabFilter):
    """One tab per state, and "failed" for whatever did not work."""

    title = _("state")
    parameter_name = "state"
    default = "all"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return all states in the order of a job's life."""
        return [("all", _("all")), *((state.value, state.label) for state in JobState)]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the jobs in one state."""
        return rows if tab == "all" else rows.filter(state=tab)


class QueueFilter(SeenFilter):
    """Jobs of one queue."""

    title = _("queue")
    parameter_name = "queue"

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the jobs of the queue; see `JobQuerySet.in_any_state`."""
        rows = super().queryset(request, queryset)
        return rows.filter(state__in=JobState.values) if self.value() else rows


class ActorFilter(SeenFilter):
    """Jobs of one actor."""

    title = _("actor")
    parameter_name = "actor"


class CompletedPaginator(BoundedPaginator):
    """Pages of all completed jobs; see `listing`."""

    def page(self, number: int | str) -> "Page[Any]":
        """Return one page, read by the ids that belong to it."""
        number = self.validate_number(number)
        bottom = (number - 1) * self.per_page
        ids = listing.newest(JobState.COMPLETED, min(bottom + self.per_page, self.count))
        if ids is None:
            return super().page(number)
        rows: Any = self.object_list
        return Page(rows.filter(pk__in=ids[bottom:]), number, self)


class JobAdmin(ActingJobAdmin):
    """The ledger, and what staff may do about jobs that have not ended."""

    list_display = ("job", "state_badge", "queue_name", "attempts_made", "age", "ran", "error")
    list_display_links = ("job",)
    list_filter = (StateTabs, QueueFilter, ActorFilter)
    ordering = ("-enqueued_at", "id")
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = _("Beginning of an id or actor, or a subject such as orders.order:12")
    empty_text = _(
        "Every message sent to an actor appears here the moment its transaction commits. "
        "Place an order, or call send() on an actor, to see one."
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Job]":
        """Leave out whatever may be large."""
        rows = Job.objects.for_list().defer("message", "result", "error_message")
        return rows.annotate(error_excerpt=Left("error_message", 200))

    def get_paginator(
        self, request: HttpRequest, queryset: "QuerySet[Any]", per_page: int, *args: Any
    ) -> "Paginator[Any]":
        """Page through completed jobs in their own way, unless something else narrows them."""
        given = {name for name, value in request.GET.items() if value}
        if given <= {"state", PAGE_VAR} and request.GET.get("state") == JobState.COMPLETED:
            return CompletedPaginator(queryset, per_page)
        return super().get_paginator(request, queryset, per_page, *args)

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        """Ask only what an index answers: a subject, or the beginning of an id or actor."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if ":" in term:
            return queryset.filter(Q(subject=term) | Q(pk=term)), False
        if _LOOKS_LIKE_ID.fullmatch(term):
            return queryset.filter(pk__startswith=term.lower()), False
        return queryset.filter(Q(actor__startswith=term) | Q(pk__startswith=term)), False

    @admin.display(description=_("job"))
    def job(self, job: Job) -> SafeString:
        """Name and short id."""
        return format_html(
            '<span class="qa-name">{}</span> <code class="qa-id" title="{}">#{}</code>',
            display.name_tag(job.actor),
            display.plain(job.pk),
            display.plain(job.short_id),
        )

    @admin.display(description=_("state"))
    def state_badge(self, job: Job) -> SafeString:
        """State as word, shape and colour."""
        state = display.badge(JobState(job.state) if job.state in JobState.values else job.state)
        if not job.is_cancelling:
            return state
        return format_html("{} {}", state, display.badge("cancelling", display.CANCELLING))

    @admin.display(description=_("queue"))
    def queue_name(self, job: Job) -> str:
        """Where it is, or was."""
        return display.plain(job.queue)

    @admin.display(description=_("attempts"))
    def attempts_made(self, job: Job) -> str:
        """Attempts of how many."""
        return display.counted(job.attempts, job.max_attempts)

    @admin.display(description=_("age"))
    def age(self, job: Job) -> SafeString | str:
        """Time since it was enqueued."""
        return display.age_tag(job.enqueued_at)

    @admin.display(description=_("ran"))
    def ran(self, job: Job) -> str:
        """Length of the last run, or of the current one so far."""
        if job.started_at is None or job.state not in (*_ENDED, JobState.ACTIVE):
            return display.NOTHING
        return display.span((job.finished_at or now()) - job.started_at)

    @admin.display(description=_("error"))
    def error(self, job: Any) -> SafeString | str:
        """Class and beginning of the last error of a job that did not complete."""
        if not job.error_class and not job.error_excerpt:
            return ""
        return format_html(
            '<span class="qa-error"><b>{}</b> <bdi>{}</bdi></span>',
            display.name_tag(job.error_class),
            display.excerpt(job.error_excerpt),
        )

    def get_urls(self) -> list[URLPattern]:
        """Add the address that reveals a payload."""
        view = self.admin_site.admin_view(self.reveal_view)
        return [
            path("<str:object_id>/reveal/", view, name="queueadmin_job_reveal"),
            *super().get_urls(),
        ]

    @method_decorator(csrf_protect)
    @method_decorator(require_POST)
    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show a job with its payload unmasked, once, and keep that it was shown."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        job = find(object_id)
        if job is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        user: Any = request.user
        try:
            revealing.reveal(job.pk, by=user)
        except NotPermitted as error:
            raise PermissionDenied from error
        # `admin_view` has the answer kept by no cache.
        return self._render(request, job, is_revealed=True)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one job; there is no form."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        job = find(object_id)
        if job is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        return self._render(request, job, extra_context)

    def _render(
        self,
        request: HttpRequest,
        job: Job,
        extra_context: dict[str, Any] | None = None,
        *,
        is_revealed: bool = False,
    ) -> HttpResponse:
        """Answer with the page of one job."""
        dead_letter = DeadLetter.objects.defer("traceback").filter(job=job).first()
        context = {
            **self.admin_site.each_context(request),
            **evidence(job, dead_letter, is_revealed=is_revealed),
            "may_reveal": self.may(request, revealing.PERMISSION),
            "opts": self.opts,
            "media": self.media,
            "title": display.plain(job),
            "verbs": self.verbs_of(request, job),
            "ids_of_job": json.dumps([job.pk]),
            "dead_letter": dead_letter,
            "may_see_job": False,  # it is this page
            "may_see_dead_letter": self.may(request, "view_deadletter"),
            "lineage": lineage.of(job),
            "is_live": job.state in RUNNABLE,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "queueadmin/job.html", context)


_ENDED = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED)


def find(object_id: str) -> Job | None:
    """Return the job an admin address means; no id contains NUL."""
    key = unquote(object_id)
    return None if "\0" in key else Job.objects.filter(pk=key).first()


def evidence(
    job: Job, dead_letter: DeadLetter | None, *, is_revealed: bool = False
) -> dict[str, Any]:
    """Return what the pages of a job and of its dead letter both show."""
    attempts = history.attempts_of(job)
    upcoming: list[datetime] = history.upcoming_of(job)
    description, links = payload.described(job)
    return {
        "job": job,
        "sentence": sentences.about_job(job, upcoming),
        "description": description,
        "links": links,
        "attempts": attempts,
        "upcoming": upcoming,
        "attempts_limit": history.SHOWN,
        "payload": payload.shown(job, dead_letter, is_revealed=is_revealed),
        "timeline": history.timeline_of(job, attempts, dead_letter, upcoming),
    }
