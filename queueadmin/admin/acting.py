"""The doors of the verbs on dead letters: asks first, checks permission, tells the result.

A form keeps the list of ids it was shown for, so that what is confirmed is what was seen.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from .. import deadletters
from ..conf import settings
from ..deadletters import BulkResult, Skip
from ..exceptions import NotPermitted
from ..models import DeadLetter, RequeueOperation
from .lists import ConsoleAdmin
from .triage_verbs import VERBS
from .verbs import NoteForm, Verb, confirmation_of

SAMPLE = 10
_csrf_protected = method_decorator(csrf_protect)


class ActingAdmin(ConsoleAdmin):
    """List actions and addresses for the verbs of `VERBS`, and for notes."""

    actions = (
        "requeue_guarded",
        "requeue",
        "assign_to_me",
        "assign",
        "set_priority",
        "set_due",
        "snooze",
        "wake",
        "link_ticket",
        "mark_failed",
    )

    def get_urls(self) -> list[URLPattern]:
        """Add one address for the verbs and one for notes."""
        wrap = self.admin_site.admin_view
        return [
            path("act/<str:name>/", wrap(self.act_view), name="queueadmin_deadletter_act"),
            path("<int:pk>/note/", wrap(self.note_view), name="queueadmin_deadletter_note"),
            *super().get_urls(),
        ]

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """For the list action."""
        return self.may(request, "requeue_deadletter")

    def has_assign_permission(self, request: HttpRequest) -> bool:
        """For the list actions on owner and priority."""
        return self.may(request, "assign_deadletter")

    def has_close_permission(self, request: HttpRequest) -> bool:
        """For the list action."""
        return self.may(request, "close_deadletter")

    @admin.action(description=_("Requeue under guard…"), permissions=["requeue"])
    def requeue_guarded(
        self, request: HttpRequest, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Ask how, then requeue them a few at a time."""
        ids = list(queryset.values_list("pk", flat=True)[: settings.BULK_LIMIT])
        pages = self.admin_site.get_model_admin(RequeueOperation)
        answer: HttpResponse = pages.begin(request, ids)  # type: ignore[attr-defined]
        return answer

    @admin.action(description=_("Requeue at once…"), permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask, then give the jobs a new round of attempts."""
        return self._selected(request, "requeue", queryset)

    @admin.action(description=_("Assign to me"), permissions=["assign"])
    def assign_to_me(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Take them on at once."""
        return self._selected(request, "assign-to-me", queryset)

    @admin.action(description=_("Assign…"), permissions=["assign"])
    def assign(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask to whom."""
        return self._selected(request, "assign", queryset)

    @admin.action(description=_("Set priority…"), permissions=["assign"])
    def set_priority(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask which."""
        return self._selected(request, "set-priority", queryset)

    @admin.action(description=_("Set due date…"), permissions=["assign"])
    def set_due(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask when."""
        return self._selected(request, "set-due", queryset)

    @admin.action(description=_("Snooze…"), permissions=["assign"])
    def snooze(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask until when."""
        return self._selected(request, "snooze", queryset)

    @admin.action(description=_("Wake"), permissions=["assign"])
    def wake(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """End their snooze at once."""
        return self._selected(request, "wake", queryset)

    @admin.action(description=_("Link ticket…"), permissions=["assign"])
    def link_ticket(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask for its address."""
        return self._selected(request, "link-ticket", queryset)

    @admin.action(description=_("Mark permanently failed…"), permissions=["close"])
    def mark_failed(self, request: HttpRequest, queryset: "QuerySet[Any]") -> HttpResponse | None:
        """Ask why, then close them."""
        return self._selected(request, "mark-failed", queryset)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Refuse a forged action plainly; the stock list would just ignore it."""
        name = request.POST.get("action", "").replace("_", "-").removesuffix("-guarded")
        if name in VERBS and not self.may(request, VERBS[name].permission):
            raise PermissionDenied
        return super().changelist_view(request, extra_context)

    @_csrf_protected
    def act_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask about a verb, and do it once it is confirmed."""
        verb = VERBS.get(name)
        if verb is None:
            raise Http404
        if not (self.has_view_permission(request) and self.may(request, verb.permission)):
            raise PermissionDenied
        given = request.POST if request.method == "POST" else request.GET
        ids = read_ids(given.get("ids", ""))
        back = given.get("back", "")
        if request.method == "POST" and ("confirmed" in given or not verb.asks):
            form = self._form(verb, ids, request.POST)
            if form.is_valid() and self._do(request, verb, ids, form):
                return HttpResponseRedirect(self._way_back(ids, back))
        else:
            form = self._form(verb, ids)
        return self._ask(request, verb, ids, back, form, total=len(ids))

    @_csrf_protected
    @method_decorator(require_POST)
    def note_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Add a note."""
        if not (self.has_view_permission(request) and self.may(request, "annotate_deadletter")):
            raise PermissionDenied
        form = NoteForm(request.POST)
        if not form.is_valid():
            return self.render_letter(request, str(pk), note_form=form)
        try:
            deadletters.annotate(pk, text=form.cleaned_data["text"], by=_user(request))
        except DeadLetter.DoesNotExist as error:
            raise Http404 from error
        self.message_user(request, _("Note added."), messages.SUCCESS)
        return HttpResponseRedirect(f"{self._address('change', pk)}#notes")

    def _selected(
        self, request: HttpRequest, name: str, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Ask about the chosen rows of a list, or act at once where nothing is asked."""
        verb = VERBS[name]
        ids = list(queryset.values_list("pk", flat=True)[: settings.BULK_LIMIT])
        back = request.GET.urlencode()
        if not verb.asks:
            self._tell(request, verb, self._run(request, verb, ids, {}))
            return HttpResponseRedirect(self._way_back([], back))
        form = self._form(verb, ids)
        return self._ask(request, verb, ids, back, form, total=queryset.count())

    def _form(self, verb: Verb, ids: list[int], data: Any = None) -> Any:
        """Return the verb's form, with a confirmation for a requeue that is not safe."""
        form = verb.form(data)
        if verb.name == "requeue" and len(ids) == 1:
            actors = DeadLetter.objects.filter(pk__in=ids).values_list("actor", flat=True)
            for actor in actors:
                form.fields.update(confirmation_of(actor))
        return form

    def _do(self, request: HttpRequest, verb: Verb, ids: list[int], form: Any) -> bool:
        """Do what was confirmed and tell; what the use case finds wrong is said at the form."""
        try:
            result = self._run(request, verb, ids, form.cleaned_data)
        except ValueError as error:
            form.add_error(None, str(error))
            return False
        self._tell(request, verb, result)
        return True

    def _run(
        self, request: HttpRequest, verb: Verb, ids: list[int], values: dict[str, Any]
    ) -> BulkResult:
        """Call the use case, whose refusal is the page's refusal."""
        try:
            return verb.run(ids, values, _user(request))
        except NotPermitted as error:
            raise PermissionDenied from error

    def _ask(
        self,
        request: HttpRequest,
        verb: Verb,
        ids: list[int],
        back: str,
        form: Any,
        *,
        total: int,
    ) -> HttpResponse:
        """Answer with a page that says in numbers what will happen."""
        expected = deadletters.preview(ids, verb.use_case)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": verb.title,
            "verb": verb,
            "form": form,
            "ids": ",".join(map(str, ids)),
            "back": back,
            "back_url": self._way_back(ids, back),
            "total": total,
            "expected": expected,
            "promise": verb.promise(expected.done),
            "skipped": _named(expected),
            "left_out": total - len(ids),
            "sample": DeadLetter.objects.for_list().filter(pk__in=ids[:SAMPLE]),
            "unnamed": len(ids) - len(ids[:SAMPLE]),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "queueadmin/confirm.html", context)

    def _tell(self, request: HttpRequest, verb: Verb, result: BulkResult) -> None:
        """Say what was done, and what was not and why."""
        if result.done:
            self.message_user(request, verb.report(result.done), messages.SUCCESS)
        for reason, count in _named(result):
            text = _("Skipped %(count)d: %(reason)s.") % {"count": count, "reason": reason}
            self.message_user(request, text, messages.WARNING)
        if result.held_by:
            holders = sorted(set(result.held_by.values()))
            named = ", ".join(holders[:SAMPLE]) + ("…" if len(holders) > SAMPLE else "")
            text = _("Unique keys are held by job %(jobs)s.") % {"jobs": named}
            self.message_user(request, text, messages.WARNING)

    def _way_back(self, ids: list[int], back: str) -> str:
        """Return to the one dead letter, or to the list as it was filtered."""
        if back == "detail" and len(ids) == 1:
            return self._address("change", ids[0])
        query = f"?{back}" if "=" in back else ""
        return self._address("changelist") + query

    def _address(self, page: str, *args: Any) -> str:
        """Return the address of one of the stock pages on this site."""
        name = f"admin:queueadmin_deadletter_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def render_letter(
        self, request: HttpRequest, object_id: str, *, note_form: NoteForm
    ) -> HttpResponse:
        """Answer with the page of one dead letter."""
        raise NotImplementedError


def read_ids(text: str) -> list[int]:
    """Read a list of ids from a form.

    Raises:
        SuspiciousOperation: it was not written by one of our pages.
    """
    parts = [part for part in text.split(",") if part]
    if not parts or not all(p.isascii() and p.isdecimal() and len(p) <= 18 for p in parts):
        raise SuspiciousOperation("A list of dead letters is needed.")
    return list(dict.fromkeys(map(int, parts)))


def _named(result: BulkResult) -> list[tuple[str, int]]:
    """Return the reasons of what was skipped in the reader's language."""
    return [(str(Skip(reason).label), count) for reason, count in result.skipped.items()]


def _user(request: HttpRequest) -> Any:
    """Return who asks; `admin_view` lets nobody in who is not logged in."""
    return request.user
