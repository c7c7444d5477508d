"""Alerts: what is the matter now, who is at it, and what there was."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import F, QuerySet, Value
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_protect

from .. import alerts, digests, display
from ..models import Alert
from ..states import AlertKind, DeadLetterStatus, GroupStatus
from .acts import Act, RecordAdmin
from .failure_group_admin import ReasonForm
from .lists import TabFilter

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


# Those of early warning are among the newest.
_MOST_ALERTS = 300


class StateTabs(TabFilter):
    """What is open first."""

    title = _("state")
    parameter_name = "state"
    default = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> "list[tuple[str, _StrPromise]]":
        """Return the views."""
        return [("open", _("open")), ("over", _("over")), ("all", _("all"))]

    def choose(self, rows: "QuerySet[Any]", tab: str) -> "QuerySet[Any]":
        """Return the alerts behind a tab."""
        return rows if tab == "all" else rows.filter(closed_at__isnull=tab == "open")


def _refusal(alert: Alert) -> "_StrPromise | str":
    if alert.closed_at is not None:
        return _("It is over.")
    return _("Somebody is at it already.") if alert.acknowledged_at is not None else ""


class AlertAdmin(RecordAdmin):
    """Every alert, the open ones first."""

    acts = (
        Act(
            name="acknowledge",
            permission="acknowledge_alert",
            button=_("Acknowledge"),
            form=ReasonForm,
            run=lambda alert, values, user: alerts.acknowledge(
                alert.pk, by=user, reason=values["reason"]
            ),
            promise=lambda alert: _t(
                "Everybody sees that you are at it. It stays open until it is back to normal."
            ),
            done=_("Acknowledged."),
            refusal=_refusal,
        ),
    )
    change_list_template = "queueadmin/alerts.html"
    list_display = ("alert", "what", "since", "over", "who")
    list_display_links = None
    list_filter = (StateTabs,)
    list_select_related = ("acknowledged_by",)
    sortable_by = ()
    search_fields = ("kind", "subject", "text")
    search_help_text = _("A queue, group or job, or a word of what was found")
    empty_text = _(
        "Nothing is the matter. What begins to be appears here: dead letters that pile up, groups "
        "that come back, queues that are stuck, workers or servers that are away. Name "
        "ALERT_EMAILS or ALERT_WEBHOOKS in the settings to be told."
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the page on which people choose whether they get the daily digest."""
        view = self.admin_site.admin_view(self.digest_view)
        return [path("digest/", view, name="queueadmin_alert_digest"), *super().get_urls()]

    @method_decorator(csrf_protect)
    def digest_view(self, request: HttpRequest) -> HttpResponse:
        """Let anybody of the staff stop their own digest, and start it again."""
        user: Any = request.user
        if request.method == "POST":
            digests.want(request.POST.get("wanted") == "yes", by=user)
            return HttpResponseRedirect(self.address("digest"))
        context = {
            **self.page_context(request, _t("Daily digest")),
            "is_wanted": digests.is_wanted_by(user),
            "email": user.email,
        }
        return TemplateResponse(request, "queueadmin/digest.html", context)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """Return all alerts, each with whether the reader may acknowledge it."""
        may = self.may(request, "acknowledge_alert")
        rows: QuerySet[Any] = super().get_queryset(request).annotate(may_acknowledge=Value(may))
        return rows

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """Return the open ones first, and the newest among them."""
        return (F("closed_at").desc(nulls_first=True), "-opened_at", "-pk")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Lead to the list, which says all there is."""
        return HttpResponseRedirect(self.address("changelist"))

    def after(self, request: HttpRequest, record: Any) -> str:
        """Go back to the list; alerts have no page of their own."""
        return self.address("changelist")

    @admin.display(description=_("alert"))
    def alert(self, alert: Alert) -> SafeString:
        """What kind it is, as a badge."""
        kind = "done" if alert.closed_at else "trouble"
        return display.badge(kind, alert.get_kind_display())

    @admin.display(description=_("what"))
    def what(self, alert: Alert) -> SafeString:
        """What was found, linked to where it can be mended."""
        return format_html(
            '<a href="{}"><bdi>{}</bdi></a>',
            address_of(alert, self.admin_site.name),
            display.excerpt(alert.text, 300),
        )

    @admin.display(description=_("since"))
    def since(self, alert: Alert) -> SafeString | str:
        """When it opened."""
        return display.time_tag(alert.opened_at)

    @admin.display(description=_("back to normal"))
    def over(self, alert: Alert) -> SafeString | str:
        """When it closed."""
        return display.time_tag(alert.closed_at)

    @admin.display(description=_("who is at it"))
    def who(self, alert: Any) -> SafeString | str:
        """Who acknowledged it, or the way to do so."""
        if alert.acknowledged_at is not None:
            name = alert.acknowledged_by.get_username() if alert.acknowledged_by else "?"
            return format_html(
                "<bdi>{}</bdi> {}", display.plain(name), display.time_tag(alert.acknowledged_at)
            )
        if alert.closed_at is not None or not alert.may_acknowledge:
            return display.NOTHING
        return format_html(
            '<a href="{}">{}</a>',
            self.address("do", quote(alert.pk), "acknowledge"),
            _("Acknowledge…"),
        )


def open_alerts() -> list[Alert]:
    """Return the open alerts, newest first; more than anybody reads are left out."""
    found = Alert.objects.filter(closed_at=None).order_by("-opened_at", "-pk")
    return list(found[:_MOST_ALERTS])


def address_of(alert: Alert, site: str) -> str:
    """Return the page of the console where an alert's trouble can be seen and mended."""
    model, query = _PLACES.get(AlertKind(alert.kind), ("queue", {}))
    if model == "deadletter" and alert.queue:
        query = {**query, "queue": alert.queue}
    if alert.kind == AlertKind.REGRESSED:
        pk = alert.subject.removeprefix("G-")
        return reverse("admin:queueadmin_failuregroup_change", args=[pk], current_app=site)
    if alert.kind == AlertKind.FAILURES and alert.queue:
        query = {"job__queue": alert.queue}
    address = reverse(f"admin:queueadmin_{model}_changelist", current_app=site)
    return f"{address}?{urlencode(query)}" if query else address


_PLACES: dict[AlertKind, tuple[str, dict[str, str]]] = {
    AlertKind.DEAD_LETTERS: ("deadletter", {"status": DeadLetterStatus.PENDING.value}),
    AlertKind.REGRESSED: ("failuregroup", {"status": GroupStatus.REGRESSED.value}),
    AlertKind.NO_WORKER: ("worker", {}),
    AlertKind.SCHEDULER: ("schedulecontrol", {}),
    AlertKind.FAILURES: ("attempt", {}),
}
