"""Reports count right, are made once, mailed, and downloaded by who may."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import Settings

from notifications.sandbox import Sandbox
from orders import report_files, reports, workflow
from orders.actors import daily_report
from orders.exceptions import InvalidReport
from orders.figures import Day
from orders.models import Product, Report, ReportState, Retailer, Subscriber, Vendor
from orders.workflow import Item, place_order
from queueadmin.testing import run_jobs
from tests.business import confirm

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TODAY = NOON.date()


@pytest.fixture(autouse=True)
def media(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def anna(db: None) -> User:
    user = User.objects.create_user("anna", is_staff=True)
    wanted = ("view_report", "add_report", "download_report")
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    return user


@pytest.fixture
def busy_day(sandbox: Sandbox, retailer: Retailer, tea: Product, vendor: Vendor) -> None:
    with time_machine.travel(NOON, tick=False):
        first, second, _third = (
            place_order(retailer=retailer, lines=[Item(tea.pk, 1)], by=None) for _order in range(3)
        )
        confirm(first)
        workflow.dispatch(first, by=None)
        workflow.deliver(first, by=None)
        workflow.cancel(second, by=retailer.user)


def rows(report: Report) -> list[dict[str, str]]:
    report.refresh_from_db()
    with report.csv.open("r") as file:
        return list(csv.DictReader(io.StringIO(file.read().partition("\n\n")[0])))


def test_a_report_counts_what_happened_on_each_day(busy_day: None, anna: User) -> None:
    with time_machine.travel(NOON, tick=False):
        report = reports.request(TODAY - timedelta(days=1), TODAY, by=anna)
        run_jobs()

    quiet, busy = rows(report)
    assert (quiet["placed"], busy["placed"], busy["delivered"], busy["cancelled"]) == (
        "0",
        "3",
        "1",
        "1",
    )
    assert busy["revenue EUR"] == "41.50"
    with report.pdf.open("rb") as file:
        assert file.read(5) == b"%PDF-"


def test_the_daily_report_is_made_once_and_mailed_with_its_files(
    busy_day: None, sandbox: Sandbox
) -> None:
    Subscriber.objects.create(name="Carla", email="carla@example.com")
    with time_machine.travel(NOON + timedelta(days=1), tick=False):
        for _night in range(2):
            daily_report.send()
            run_jobs()

    assert Report.objects.get().state == ReportState.READY
    (mail,) = [sent for sent in sandbox.messages if sent.recipient == "carla@example.com"]
    assert "41.50" in mail.text
    name = f"2026-03-02-2026-03-02-{Report.objects.get().pk}"
    assert mail.attachments == [f"{name}.csv", f"{name}.pdf"]


def test_a_report_is_asked_for_followed_and_downloaded_in_the_admin(
    anna: User, client: Client
) -> None:
    client.force_login(anna)
    day = {"first_day": str(date.today()), "last_day": str(date.today())}

    client.post("/admin/orders/report/add/", day)
    report = Report.objects.get()
    waiting = client.get(f"/admin/orders/report/{report.pk}/download/csv/")
    run_jobs()
    file = client.get(f"/admin/orders/report/{report.pk}/download/pdf/")

    assert b"".join(file.streaming_content).startswith(b"%PDF-")
    assert report.requested_by == anna
    assert waiting.status_code == 404
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert "100 %" in client.get("/admin/orders/report/").content.decode()


def test_downloading_needs_its_own_permission(anna: User, client: Client) -> None:
    reports.request(date.today(), date.today(), by=anna)
    run_jobs()
    anna.user_permissions.remove(Permission.objects.get(codename="download_report"))
    client.force_login(User.objects.get(pk=anna.pk))

    answer = client.get(f"/admin/orders/report/{Report.objects.get().pk}/download/csv/")

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [(2, 1, "before the first"), (0, 1, "future"), (-400, 0, "at most 366")],
)
def test_a_period_that_makes_no_sense_is_refused(
    anna: User, first: int, last: int, words: str
) -> None:
    with time_machine.travel(NOON, tick=False), pytest.raises(InvalidReport, match=words):
        reports.request(TODAY + timedelta(days=first), TODAY + timedelta(days=last), by=anna)

    assert not Report.objects.exists()


def test_a_report_of_a_year_is_still_a_document() -> None:
    days = [Day(TODAY + timedelta(days=offset)) for offset in range(366)]
    days[3].revenue["GBP"] = Decimal("1.00")

    assert report_files.as_pdf("<Report> & more", days).startswith(b"%PDF-")


def test_a_cause_that_looks_like_a_formula_is_text_in_the_csv() -> None:
    day = Day(TODAY)
    day.causes["=HYPERLINK()"] = 1

    assert "'=HYPERLINK()" in report_files.as_csv([day]).decode()


def test_two_runs_of_the_same_report_leave_one_pair_of_files(anna: User, media: Path) -> None:
    report = reports.request(date.today(), date.today(), by=anna)
    run_jobs()
    reports.generate(report.pk)
    Report.objects.update(state=ReportState.READY)

    assert len(list(media.rglob("*.*"))) == 2
