"""Guarded requeues: preview, confirm in numbers, and the run that everybody sees alike."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect

from .. import display, editing, failuregroups, operations, replacing
from ..conf import settings
from ..deadletters import Skip
from ..exceptions import NotPermitted
from ..models import DeadLetter, FailureGroup, OperationItem, RequeueOperation
from ..states import ItemState, OperationStatus
from .acting import read_ids
from .acts import Act, RecordAdmin
from .failure_group_admin import ReasonForm
from .lists import COUNT_LIMIT, BoundedPaginator, TabFilter, bounded_count
from .operation_forms import OperationForm, ReplaceForm
from .sentences import about_operation, promise_of_operation

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

_NONE_FITS = _("None of these dead letters has this value.")
PER_PAGE = 50
LINKED = 5


class StatusTabs(TabFilter):
    """What is under way first."""

    title = _("status")
    parameter_name = "status"
    default = "all"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return the views."""
        return [("all", _("all")), *((status.value, status.label) for status in OperationStatus)]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the operations behind a tab."""
        return rows if tab == "all" else rows.filter(status=tab)


def _not_under_way(operation: RequeueOperation) -> "_StrPromise | str":
    return "" if operation.status in RequeueOperation.UNDER_WAY else _("It is not under way.")


def _not_waiting(operation: RequeueOperation) -> "_StrPromise | str":
    waits = (OperationStatus.PAUSED, OperationStatus.STOPPED)
    return "" if operation.status in waits else _("It is neither paused nor stopped.")


def _ended(operation: RequeueOperation) -> "_StrPromise | str":
    return _("It has ended.") if operation.has_ended else ""


def _will_resume(operation: RequeueOperation) -> str:
    if operation.status == OperationStatus.STOPPED and operation.canary:
        return _t("Another canary of %(count)d jobs runs first; failures are counted anew.") % {
            "count": operation.canary
        }
    return _t("It goes on at %(rate)g jobs per second.") % {"rate": operation.rate}


ACTS = (
    Act(
        name="pause",
        permission=operations.PERMISSION,
        button=_("Pause"),
        run=lambda operation, values, user: operations.pause(operation.pk, by=user),
        done=_("Paused. Jobs that run already go on."),
        refusal=_not_under_way,
        asks=False,
    ),
    Act(
        name="resume",
        permission=operations.PERMISSION,
        button=_("Resume"),
        form=ReasonForm,
        run=lambda operation, values, user: operations.resume(
            operation.pk, by=user, reason=values["reason"]
        ),
        promise=_will_resume,
        done=_("It goes on."),
        refusal=_not_waiting,
    ),
    Act(
        name="abort",
        permission=operations.PERMISSION,
        button=_("Abort"),
        form=ReasonForm,
        run=lambda operation, values, user: operations.abort(
            operation.pk, by=user, reason=values["reason"]
        ),
        promise=lambda operation: _t(
            "Jobs that were requeued already go on; the others stay dead letters."
        ),
        done=_("Aborted."),
        refusal=_ended,
        is_final=True,
    ),
)


class RequeueOperationAdmin(RecordAdmin):
    """The list of guarded requeues, the page that begins one, and the page of one."""

    acts = ACTS
    list_display = ("operation", "status_badge", "progress", "again", "owner_name", "age")
    list_display_links = ("operation",)
    list_filter = (StatusTabs,)
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("name", "reason", "owner_name")
    empty_text = _(
        "Nothing here. Choose dead letters, or open a failure group, and press “Requeue…”: a "
        "few run first, and it stops by itself when they fail again."
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the address that begins an operation."""
        view = self.admin_site.admin_view(self.new_view)
        return [path("new/", view, name="queueadmin_requeueoperation_new"), *super().get_urls()]

    def get_queryset_of_one(self) -> "QuerySet[Any]":
        """Join what the page shows."""
        return RequeueOperation.objects.select_related("group", "owner")

    def prepare(self, rows: Sequence[Any]) -> None:
        """Count the jobs of the shown operations in one query."""
        found = operations.progress(rows)
        for row in rows:
            row.numbers = found[row.pk]

    @admin.display(description=_("operation"))
    def operation(self, operation: RequeueOperation) -> SafeString:
        """Its name and why."""
        return format_html(
            '<bdi>{}</bdi> <span class="qa-from"><bdi>{}</bdi></span>',
            display.plain(operation.name),
            display.excerpt(operation.reason, 80),
        )

    @admin.display(description=_("status"))
    def status_badge(self, operation: RequeueOperation) -> SafeString:
        """Status as word, shape and colour."""
        return display.badge(OperationStatus(operation.status))

    @admin.display(description=_("ended"))
    def progress(self, operation: Any) -> str:
        """Jobs with a result of all."""
        numbers = operation.numbers
        return f"{numbers.total - numbers.waiting - numbers.sent:,}/{numbers.total:,}"

    @admin.display(description=_("failed again"))
    def again(self, operation: Any) -> str:
        """Failures and their share."""
        numbers = operation.numbers
        if not numbers.ended:
            return display.NOTHING
        return f"{numbers.failed:,} ({numbers.failed_percent:.0f} %)"

    @admin.display(description=_("age"))
    def age(self, operation: RequeueOperation) -> SafeString | str:
        """Time since it was made."""
        return display.age_tag(operation.created_at)

    @method_decorator(csrf_protect)
    def new_view(self, request: HttpRequest) -> HttpResponse:
        """Preview a selection, confirm it in numbers, and begin."""
        given = request.POST if request.method == "POST" else request.GET
        group = self._group(given.get("group", ""))
        ids = (
            list(failuregroups.pending(group).values_list("pk", flat=True)[: settings.BULK_LIMIT])
            if group is not None and "ids" not in given
            else read_ids(given.get("ids", ""))
            if given.get("ids") or group is None
            else []
        )
        return self.begin(
            request,
            ids,
            group=group,
            is_first=request.method != "POST",
            is_change="change" in given,
        )

    def begin(
        self,
        request: HttpRequest,
        ids: list[int],
        *,
        group: FailureGroup | None = None,
        is_first: bool = True,
        is_change: bool = False,
    ) -> HttpResponse:
        """Answer with the preview, the confirmation, or the operation that has begun."""
        if not (self.has_view_permission(request) and self.may(request, operations.PERMISSION)):
            raise PermissionDenied
        if is_change and not self.may_change_many(request):
            raise PermissionDenied
        stage = "" if is_first else request.POST.get("stage", "")
        initial = (
            {"name": f"{group.label} {display.excerpt(group.error_class, 60)}"} if group else {}
        )
        sent = request.POST if stage else None
        form = (
            ReplaceForm(replacing.seen(ids), sent, initial=initial)
            if is_change
            else OperationForm(sent, initial=initial)
        )
        is_valid = bool(stage) and form.is_valid()
        found = operations.preview(ids, form.replacement() if is_valid else None)
        if is_valid and is_change and not found.eligible:
            form.add_error("after" if found.problem else "before", found.problem or _NONE_FITS)
            found, is_valid = operations.preview(ids), False
        if is_valid and stage == "confirmed":
            operation = self._create(request, ids, form, group)
            if operation is not None:
                return HttpResponseRedirect(self.address("change", operation.pk))
        is_confirming = is_valid and stage == "preview"
        context = {
            **self.page_context(
                request, _("Change and requeue") if is_change else _("Requeue under guard")
            ),
            "form": form,
            "group": group,
            "is_change": is_change,
            "examples": DeadLetter.objects.for_list().filter(pk__in=found.examples),
            "ids": ",".join(map(str, ids)),
            "found": found,
            "skipped": [
                (_skip(reason), len(keys), keys[:LINKED]) for reason, keys in found.skipped.items()
            ],
            "left": _left_for_later(group, len(ids)),
            "is_confirming": is_confirming,
            "promise": promise_of_operation(form.cleaned_data, found.eligible)
            if is_confirming
            else "",
        }
        return TemplateResponse(request, "queueadmin/new_operation.html", context)

    def _create(
        self, request: HttpRequest, ids: list[int], form: OperationForm, group: FailureGroup | None
    ) -> RequeueOperation | None:
        user: Any = request.user
        try:
            return operations.create(
                ids,
                by=user,
                group=group,
                replacement=form.replacement(),
                **{name: form.cleaned_data[name] for name in OperationForm.base_fields},
            )
        except NotPermitted as error:
            raise PermissionDenied from error
        except ValueError as error:
            form.add_error(None, str(error))
            return None

    def may_change_many(self, request: HttpRequest) -> bool:
        """Return whether this person may change an argument of many jobs."""
        return self.may(request, replacing.PERMISSION) and self.may(request, editing.PERMISSION)

    def _group(self, text: str) -> FailureGroup | None:
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            return None
        return FailureGroup.objects.filter(pk=int(text)).first()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show how far one operation is, and the result of each job."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        operation = self.find(unquote(object_id))
        if operation is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        numbers = operations.progress([operation])[operation.pk]
        state = request.GET.get("state", "")
        rows = OperationItem.objects.filter(operation=operation).select_related("dead_letter__job")
        if state in ItemState.values:
            rows = rows.filter(state=state)
        rows = rows.defer("dead_letter__traceback", "dead_letter__raw", "dead_letter__job__message")
        page = BoundedPaginator(rows.order_by("position"), PER_PAGE).get_page(request.GET.get("p"))
        context = {
            **self.page_context(request, display.plain(operation.name)),
            "operation": operation,
            "numbers": numbers,
            "sentence": about_operation(operation, numbers),
            "left": _left(operation, numbers),
            "tabs": [
                (value, label, getattr(numbers, value), value == state)
                for value, label in ItemState.choices
            ],
            "state": state if state in ItemState.values else "",
            "page": page,
            "items": [(item, _skip(item.skip) if item.skip else "") for item in page],
            "buttons": self.buttons(request, operation),
            "is_live": not operation.has_ended,
            "group_url": reverse(
                "admin:queueadmin_failuregroup_change",
                args=[operation.group_id],
                current_app=self.admin_site.name,
            )
            if operation.group_id
            else "",
            **(extra_context or {}),
        }
        return TemplateResponse(request, "queueadmin/operation.html", context)


def _skip(reason: str) -> str:
    """Return a reason in the reader's language, or as it was stored."""
    return str(Skip(reason).label) if reason in Skip.values else display.plain(reason)


def _left_for_later(group: FailureGroup | None, taken: int) -> str:
    """Return how many pending dead letters of a group one operation cannot take, if any."""
    if group is None or taken < settings.BULK_LIMIT:
        return ""
    left = bounded_count(failuregroups.pending(group), more=taken) - taken
    if left > COUNT_LIMIT:
        return f"{COUNT_LIMIT:,}+"
    return f"{left:,}" if left > 0 else ""


def _left(operation: RequeueOperation, numbers: operations.Progress) -> timedelta | None:
    """Return how long the release of the rest takes at its rate."""
    if operation.status not in RequeueOperation.UNDER_WAY or not numbers.waiting:
        return None
    return timedelta(seconds=numbers.waiting / operation.rate)
