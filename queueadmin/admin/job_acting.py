"""The doors of the verbs on jobs: asks first, checks permission, tells the result.

A form keeps the list of ids it was shown for, so that what is confirmed is what was seen.
"""

import json
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect

from .. import jobs
from ..conf import settings
from ..deadletters import BulkResult
from ..exceptions import NotPermitted
from ..jobs import CancelResult, Skip
from ..models import Job
from .acting import SAMPLE
from .job_verbs import JOB_VERBS, JobVerb, stopping
from .lists import ConsoleAdmin

_ID_LENGTH = 64


class ActingJobAdmin(ConsoleAdmin):
    """List actions and addresses for the verbs of `JOB_VERBS`."""

    actions = ("run_now", "reschedule", "cancel")

    def get_urls(self) -> list[URLPattern]:
        """Add one address for the verbs."""
        view = self.admin_site.admin_view(self.act_view)
        return [path("act/<str:name>/", view, name="queueadmin_job_act"), *super().get_urls()]

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """For the list action."""
        return self.may(request, "cancel_job")

    def has_reschedule_permission(self, request: HttpRequest) -> bool:
        """For the list action."""
        return self.may(request, "reschedule_job")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """For the list action."""
        return self.may(request, "retry_job")

    @admin.action(description=_("Run now…"), permissions=["retry"])
    def run_now(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse:
        """Ask, then make them due."""
        return self._selected(request, "run-now", queryset)

    @admin.action(description=_("Reschedule…"), permissions=["reschedule"])
    def reschedule(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse:
        """Ask for when."""
        return self._selected(request, "reschedule", queryset)

    @admin.action(description=_("Cancel…"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse:
        """Ask, then cancel."""
        return self._selected(request, "cancel", queryset)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Refuse a forged action plainly; the stock list would just ignore it."""
        name = request.POST.get("action", "").replace("_", "-")
        if name in JOB_VERBS and not self.may(request, JOB_VERBS[name].permission):
            raise PermissionDenied
        return super().changelist_view(request, extra_context)

    @method_decorator(csrf_protect)
    def act_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask about a verb, and do it once it is confirmed."""
        verb = JOB_VERBS.get(name)
        if verb is None:
            raise Http404
        if not (self.has_view_permission(request) and self.may(request, verb.permission)):
            raise PermissionDenied
        given = request.POST if request.method == "POST" else request.GET
        ids = _ids(given.get("ids", ""))
        back = given.get("back", "")
        form = verb.form()
        if request.method == "POST" and "confirmed" in given:
            form = verb.form(request.POST)
            if form.is_valid():
                self._tell(request, verb, self._run(request, verb, ids, form.cleaned_data))
                return HttpResponseRedirect(self._way_back(ids, back))
        return self._ask(request, verb, ids, back, form, total=len(ids))

    def verbs_of(self, request: HttpRequest, job: Job) -> list[dict[str, Any]]:
        """Return the verbs for the page of a job, each with why it cannot be done now.

        Of several with the same reason the last says it, for all of them.
        """
        found: list[dict[str, Any]] = [
            {"verb": verb, "refusal": verb.refusal(job, self.may(request, verb.permission))}
            for verb in JOB_VERBS.values()
        ]
        for number, item in enumerate(found):
            same = [at for at, other in enumerate(found) if other["refusal"] == item["refusal"]]
            item |= {"says_why": same[-1] == number, "why": same[-1]}
        return found

    def _selected(self, request: HttpRequest, name: str, queryset: "QuerySet[Any]") -> HttpResponse:
        """Ask about the chosen rows of a list."""
        verb = JOB_VERBS[name]
        ids = list(queryset.values_list("pk", flat=True)[: settings.BULK_LIMIT])
        back = request.GET.urlencode()
        return self._ask(request, verb, ids, back, verb.form(), total=queryset.count())

    def _run(
        self, request: HttpRequest, verb: JobVerb, ids: list[str], values: dict[str, Any]
    ) -> BulkResult:
        """Call the use case, whose refusal is the page's refusal."""
        user: Any = request.user  # `admin_view` lets nobody in who is not logged in
        try:
            return verb.run(ids, values, user)
        except NotPermitted as error:
            raise PermissionDenied from error

    def _ask(
        self,
        request: HttpRequest,
        verb: JobVerb,
        ids: list[str],
        back: str,
        form: Any,
        *,
        total: int,
    ) -> HttpResponse:
        """Answer with a page that says in numbers what will happen."""
        expected = jobs.preview(ids, verb.use_case)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": verb.title,
            "verb": verb,
            "form": form,
            "ids": json.dumps(ids),
            "back": back,
            "back_url": self._way_back(ids, back),
            "total": total,
            "expected": expected,
            "promise": verb.promise(expected.done),
            "skipped": _named(expected),
            "left_out": total - len(ids),
            "sample": Job.objects.for_list().filter(pk__in=ids[:SAMPLE]),
            "unnamed": len(ids) - len(ids[:SAMPLE]),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "queueadmin/confirm_jobs.html", context)

    def _tell(self, request: HttpRequest, verb: JobVerb, result: BulkResult) -> None:
        """Say what was done, and what was not and why."""
        if result.done:
            self.message_user(request, verb.report(result.done), messages.SUCCESS)
        if isinstance(result, CancelResult) and result.stopping:
            self.message_user(request, stopping(result.stopping), messages.INFO)
        for reason, count in _named(result):
            text = _("Skipped %(count)d: %(reason)s.") % {"count": count, "reason": reason}
            self.message_user(request, text, messages.WARNING)

    def _way_back(self, ids: list[str], back: str) -> str:
        """Return to the one job, or to the list as it was filtered."""
        site = self.admin_site.name
        if back == "detail" and len(ids) == 1:
            return reverse("admin:queueadmin_job_change", args=[quote(ids[0])], current_app=site)
        query = f"?{back}" if "=" in back else ""
        return reverse("admin:queueadmin_job_changelist", current_app=site) + query


def _ids(text: str) -> list[str]:
    """Read a list of ids from a form; ids chosen by callers may have any character.

    Raises:
        SuspiciousOperation: it was not written by one of our pages.
    """
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError):
        ids = None
    if (
        not isinstance(ids, list)
        or not ids
        or not all(isinstance(key, str) and 0 < len(key) <= _ID_LENGTH for key in ids)
        or not all(key.isprintable() for key in ids)
    ):
        raise SuspiciousOperation("A list of jobs is needed.")
    return list(dict.fromkeys(ids))


def _named(result: BulkResult) -> list[tuple[str, int]]:
    """Return the reasons of what was skipped in the reader's language."""
    return [(str(Skip(reason).label), count) for reason, count in result.skipped.items()]
