"""Reports count right, are made once, mailed, and downloaded by who may."""

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from reportlab import rl_config

from notifications.sandbox import Sandbox
from orders import figures, report_files, reports, workflow
from orders.actors import daily_report
from orders.exceptions import InvalidReport
from orders.figures import Day
from orders.models import Product, Report, ReportState, Retailer, Subscriber, Vendor
from orders.workflow import Item, place_order
from queueadmin import execution
from queueadmin.models import Job
from queueadmin.states import JobState
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
    assert "ready" in client.get("/admin/orders/report/").content.decode()


def progress_on(page: HttpResponse) -> str:
    found = re.search(r'<p class="qa-progress">.*?</p>', page.content.decode(), re.S)
    return found[0] if found else ""


@pytest.mark.parametrize("is_daily", [True, False])
def test_the_pages_of_a_report_and_of_its_job_show_the_same_progress(
    anna: User, client: Client, is_daily: bool
) -> None:
    anna.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(anna)
    report = (
        reports.request_daily()
        if is_daily
        else reports.request(date.today(), date.today(), by=anna)
    )
    Job.objects.update(
        state=JobState.ACTIVE, progress_done=3, progress_total=32, progress_text="2026-03-04"
    )
    job = Job.objects.get()

    of_job = progress_on(client.get(f"/admin/queueadmin/job/{job.pk}/change/", follow=True))
    of_report = progress_on(client.get(f"/admin/orders/report/{report.pk}/change/"))
    in_list = progress_on(client.get("/admin/orders/report/"))

    assert "3 of 32" in of_job
    assert of_job == of_report == in_list


def test_a_running_report_says_which_day_it_counts(
    anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    count = figures.of_day

    def counting(day: date) -> Day:
        run = execution.current()
        said.append(run and run.progress)
        return count(day)

    monkeypatch.setattr(figures, "of_day", counting)
    with time_machine.travel(NOON, tick=False):
        reports.request(TODAY - timedelta(days=1), TODAY, by=anna)
        run_jobs()

    assert said == [(0, 3, "2026-03-01"), (1, 3, "2026-03-02")]


def test_the_page_of_a_report_follows_it_until_it_is_ready(anna: User, client: Client) -> None:
    client.force_login(anna)
    report = reports.request(date.today(), date.today(), by=anna)
    address = f"/admin/orders/report/{report.pk}/change/"

    waiting = client.get(address).content.decode()
    run_jobs()
    ready = client.get(address).content.decode()

    assert f'hx-get="{address}"' in waiting
    assert "hx-get" not in ready
    assert "/download/csv/" in ready


def test_the_list_of_reports_asks_for_all_their_jobs_at_once(anna: User, client: Client) -> None:
    client.force_login(anna)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get("/admin/orders/report/")
        return len(captured)

    reports.request(date.today(), date.today(), by=anna)
    of_one = queries()
    for _report in range(5):
        reports.request(date.today(), date.today(), by=anna)

    assert queries() == of_one


def test_a_daily_report_asked_for_twice_is_made_by_one_job() -> None:
    first, second = reports.request_daily(), reports.request_daily()

    assert first == second
    assert Job.objects.filter(actor="generate_daily_report").count() == 1


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


@pytest.mark.parametrize(("length", "named"), [(1, 1), (15, 15), (28, 14), (366, 15)])
def test_the_chart_says_what_it_shows_and_names_no_more_days_than_fit(
    length: int, named: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl_config, "pageCompression", 0)
    days = [Day(TODAY + timedelta(days=offset)) for offset in range(length)]

    page = report_files.as_pdf("Report", days).decode("latin-1")

    assert len(re.findall(r"\(\d\d\.\d\d\.\) Tj", page)) == named
    for state in ("placed", "delivered"):
        # Beside the totals and the table of days, which may go over pages: the key.
        assert page.count(f"({state}) Tj") >= 3


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
