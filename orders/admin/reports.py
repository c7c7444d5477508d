"""Reports in the admin: asked for, watched, downloaded."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from .. import reports
from ..exceptions import InvalidReport
from ..models import Report, ReportState, Subscriber

if TYPE_CHECKING:
    ReportAdminBase = admin.ModelAdmin[Report]
    SubscriberAdminBase = admin.ModelAdmin[Subscriber]
    ReportFormBase = forms.ModelForm[Report]
else:
    ReportAdminBase = SubscriberAdminBase = admin.ModelAdmin
    ReportFormBase = forms.ModelForm

KINDS = {"csv": "text/csv", "pdf": "application/pdf"}


class ReportForm(ReportFormBase):
    """The period of a new report."""

    class Meta:
        model = Report
        fields = ("first_day", "last_day")

    def clean(self) -> dict[str, Any]:
        """Refuse a period that cannot be reported."""
        cleaned: dict[str, Any] = super().clean() or {}
        if "first_day" in cleaned and "last_day" in cleaned:
            try:
                reports.require_valid(cleaned["first_day"], cleaned["last_day"])
            except InvalidReport as error:
                raise forms.ValidationError(str(error), code="period") from error
        return cleaned


@admin.register(Report)
class ReportAdmin(ReportAdminBase):
    """Figures of a period, as CSV and PDF."""

    form = ReportForm
    list_display = ("__str__", "state", "share", "requested_by", "requested_at", "files")
    list_filter = ("state", "is_daily")
    list_select_related = ("requested_by",)
    readonly_fields = ("state", "requested_by", "requested_at", "ready_at", "files")
    change_form_template = "admin/orders/report/change_form.html"

    class Media:
        css = {"all": ("queueadmin/console.css",)}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Ask for the period only; the rest follows."""
        period = ("first_day", "last_day")
        return period if obj is None else (*period, *self.readonly_fields)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Reports are not changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Reports stay."""
        return False

    def save_model(self, request: HttpRequest, obj: Report, form: Any, change: bool) -> None:
        """Enqueue the report; what the use case saved is what the admin goes on with."""
        made = reports.request(obj.first_day, obj.last_day, by=request.user)  # type: ignore[arg-type]
        obj.pk = made.pk
        obj.refresh_from_db()

    def get_urls(self) -> list[URLPattern]:
        """Add the door to the files."""
        view = self.admin_site.admin_view(self.download_view)
        own = path("<int:report_id>/download/<str:kind>/", view, name="orders_report_download")
        return [own, *super().get_urls()]

    def download_view(self, request: HttpRequest, report_id: int, kind: str) -> HttpResponseBase:
        """Send a file of a finished report to who may download reports."""
        if kind not in KINDS:
            raise Http404
        if not request.user.has_perm("orders.download_report"):
            raise PermissionDenied
        report = get_object_or_404(Report, pk=report_id, state=ReportState.READY)
        file = getattr(report, kind)
        return FileResponse(
            file.open("rb"),
            as_attachment=True,
            filename=f"report-{report.first_day}-{report.last_day}.{kind}",
            content_type=KINDS[kind],
        )

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Find the jobs of the shown reports in one query."""
        changes = super().get_changelist_instance(request)
        jobs = reports.jobs_of(changes.result_list)
        for report in changes.result_list:
            report.job = jobs.get(report.pk)
        return changes

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the progress of a report that is being made, by the job that makes it."""
        context = dict(extra_context or {})
        report = self.get_object(request, object_id) if object_id else None
        if report is not None and report.state == ReportState.WAITING:
            context["job"] = reports.jobs_of([report]).get(report.pk)
            context["is_live"] = True
        return super().changeform_view(request, object_id, form_url, context)

    @admin.display(description=_("progress"))
    def share(self, report: Any) -> str:
        """Show how far the job that makes it has come, in the words of the job's own page."""
        if report.state == ReportState.READY or report.job is None:
            return ""
        return render_to_string("queueadmin/includes/progress_bar.html", {"job": report.job})

    @admin.display(description=_("files"))
    def files(self, report: Report) -> str:
        """Link the files of a finished report."""
        if report.state != ReportState.READY:
            return "–"
        links = [reverse("admin:orders_report_download", args=[report.pk, kind]) for kind in KINDS]
        return format_html('<a href="{}">CSV</a> · <a href="{}">PDF</a>', *links)


@admin.register(Subscriber)
class SubscriberAdmin(SubscriberAdminBase):
    """Who gets reports and warnings by e-mail."""

    list_display = ("name", "email", "wants_reports", "wants_drifts")
