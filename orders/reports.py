"""Reports: asked for by staff or made each day, stored, mailed. The only writer of `Report`."""

import logging
from collections.abc import Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from queueadmin import progress
from queueadmin.models import Job
from queueadmin.models.job import subject_key

from . import figures, telling
from .exceptions import InvalidReport
from .models import Report, ReportState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

#: The actors whose progress is a report's progress.
MAKERS = ("generate_report", "generate_daily_report")
#: Longer ones would be asked for by mistake.
MAX_DAYS = 366


def request(first_day: date, last_day: date, *, by: "User") -> Report:
    """Enqueue a report of a period.

    Raises:
        InvalidReport: the period ends before it begins, is too long, or is not over yet.
    """
    from .actors import generate_report

    require_valid(first_day, last_day)
    with transaction.atomic():
        report = Report.objects.create(first_day=first_day, last_day=last_day, requested_by=by)
        generate_report.send_with_options(args=(report.pk,), subject=subject_key(report))
    return report


def require_valid(first_day: date, last_day: date) -> None:
    """Raise InvalidReport for a period that cannot be reported."""
    if last_day < first_day:
        raise InvalidReport(_("The last day is before the first."))
    if last_day > timezone.localdate():
        raise InvalidReport(_("The last day is in the future."))
    if last_day - first_day >= timedelta(days=MAX_DAYS):
        raise InvalidReport(_("A report covers at most %(most)d days.") % {"most": MAX_DAYS})


def request_daily() -> Report:
    """Enqueue yesterday's report; it is made once however often it is asked for."""
    from .actors import generate_daily_report

    yesterday = timezone.localdate() - timedelta(days=1)
    with transaction.atomic():
        report, _is_new = Report.objects.get_or_create(
            first_day=yesterday, is_daily=True, defaults={"last_day": yesterday}
        )
        if report.state == ReportState.WAITING:
            subject = subject_key(report)
            # Asked for again while it is made, it is not made twice.
            generate_daily_report.send_with_options(
                args=(report.pk,), subject=subject, unique_key=subject
            )
    return report


def jobs_of(reports: Iterable[Report]) -> dict[int, Job]:
    """Return the newest job that makes or made each report; old ones have none any more."""
    keys = {subject_key(report): report.pk for report in reports}
    jobs = Job.objects.filter(subject__in=keys, actor__in=MAKERS).defer("message", "result")
    return {keys[job.subject]: job for job in jobs.order_by("enqueued_at", "id")}


def generate(report_id: int) -> None:
    """Count, write both files and mail them; of two runs one's files stay."""
    # Here: what draws PDF takes longer to import than all else that a command or a web process
    # needs of this module.
    from . import report_files

    report = Report.objects.get(pk=report_id)
    if report.state == ReportState.READY:
        return
    days = _count(report)
    name = f"reports/{report.first_day}-{report.last_day}-{report.pk}"
    csv = default_storage.save(f"{name}.csv", ContentFile(report_files.as_csv(days)))
    pdf = default_storage.save(f"{name}.pdf", ContentFile(report_files.as_pdf(str(report), days)))
    named = [
        {"name": label, "value": value} for label, value in report_files.totals(figures.total(days))
    ]
    with transaction.atomic():
        is_first = Report.objects.filter(pk=report_id, state=ReportState.WAITING).update(
            state=ReportState.READY,
            csv=csv,
            pdf=pdf,
            summary={"totals": named},
            ready_at=timezone.now(),
        )
        if is_first:
            report.refresh_from_db()
            telling.tell_of_report(report)
    if not is_first:
        default_storage.delete(csv)
        default_storage.delete(pdf)


def _count(report: Report) -> list[figures.Day]:
    length = (report.last_day - report.first_day).days + 1
    days = []
    for offset in range(length):
        day = report.first_day + timedelta(days=offset)
        # The file is a step of its own: all is done only when it is written.
        progress(offset, length + 1, day.isoformat())
        days.append(figures.of_day(day))
    progress(length, length + 1)
    return days
