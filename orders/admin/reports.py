"""Reports in the admin: asked for, watched, downloaded."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
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
    readonly_fields = ("state", "share", "requested_by", "requested_at", "ready_at", "files")

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

    @admin.display(description=_("progress"), ordering="progress")
    def share(self, report: Report) -> str:
        """Show how much is counted."""
        return format_html(
            '<progress max="100" value="{}" aria-label="{}"></progress> {} %',
            report.progress,
            _("progress"),
            report.progress,
        )

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
