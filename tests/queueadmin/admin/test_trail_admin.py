from datetime import timedelta

import pytest
from django.contrib import admin
from django.test import Client, override_settings
from django.urls import include, path, reverse
from django.utils import timezone

from queueadmin import audit, operations
from queueadmin.admin import register
from queueadmin.models import RecoveryRun
from tests.queueadmin.rows import make_dead_letter, make_group, make_job

other_site = admin.AdminSite(name="backstage")
register(other_site)
urlpatterns = [
    path("backstage/", other_site.urls),
    path("admin/", admin.site.urls),
    path("", include("config.urls")),
]


def test_the_audit_trail_is_listed_filtered_and_linked(viewer: Client) -> None:
    letter = make_dead_letter()
    audit.record("requeue", "dead letter", [letter.pk], by=None, reason="outage over")
    audit.record("close", "dead letter", [letter.pk], by=None, reason="<script>")

    html = viewer.get("/admin/queueadmin/auditentry/").content.decode()
    found = viewer.get("/admin/queueadmin/auditentry/?verb=requeue&q=outage").context["cl"]

    assert reverse("admin:queueadmin_deadletter_change", args=[letter.pk]) in html
    assert "&lt;script&gt;" in html
    assert [entry.verb for entry in found.result_list] == ["requeue"]


def test_an_act_is_said_in_the_words_of_the_filter(viewer: Client) -> None:
    audit.record(
        "create", "requeue operation", [1], by=None, name="<b>", jobs=3, dry_run=True,
        mentioned=["anna", "ben"],
    )  # fmt: skip
    audit.record("of another version", "job", ["x"], by=None)

    html = viewer.get("/admin/queueadmin/auditentry/").content.decode()

    assert "begin a requeue</td>" in html
    assert "dry run: yes · jobs: 3 · mentioned: anna, ben · name: &lt;b&gt;" in html
    assert "of another version" in html


def test_nobody_edits_the_audit_trail(anna: Client, viewer: Client) -> None:
    audit.record("requeue", "dead letter", [1], by=None)
    address = "/admin/queueadmin/auditentry/1/"

    assert anna.get("/admin/queueadmin/auditentry/").status_code == 403
    assert viewer.post(f"{address}change/", {"reason": "x"}).status_code == 403
    assert viewer.post(f"{address}delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"error": "OperationalError: gone"}, "failed"),
        ({"found": {"re-dispatched": 3, "lost": 0}}, "re-dispatched 3"),
        ({"finished_at": None}, "running"),
        ({"found": ["not", "a", "dict"]}, "nothing"),
        (
            {"durations_ms": {"x": 5, "lost in the broker": 2700.0, "overdue": 12.4}},
            "overdue 12 ms · lost in the broker 2.7 s · x 5 ms",
        ),
        ({"durations_ms": {"<b>": 1}}, "&lt;b&gt; 1 ms"),
        ({"durations_ms": ["x"]}, "nothing"),
        ({"durations_ms": {"overdue": "long"}}, "nothing"),
    ],
)
def test_recovery_runs_say_what_they_found(
    viewer: Client, fields: dict[str, object], word: str
) -> None:
    now = timezone.now()
    values = {"started_at": now - timedelta(seconds=2), "finished_at": now, **fields}
    RecoveryRun.objects.create(**values)

    assert word in viewer.get("/admin/queueadmin/recoveryrun/").content.decode()


@override_settings(ROOT_URLCONF=__name__)
def test_the_console_works_on_an_admin_site_of_ones_own(lead: Client) -> None:
    letter, job = make_dead_letter(fingerprint="f"), make_job()
    group = make_group(fingerprint="f")
    operation = operations.create([letter.pk], by=None, name="Again", group=group)
    audit.record("requeue", "dead letter", [letter.pk], by=None)
    lists = (
        "overview", "queue", "worker", "schedulecontrol", "job", "attempt", "deadletter",
        "failuregroup", "requeueoperation", "assignmentrule", "recoveryrun", "auditentry",
    )  # fmt: skip
    pages = [
        *(f"{name}/" for name in lists),
        f"deadletter/{letter.pk}/change/",
        f"deadletter/act/requeue/?ids={letter.pk}",
        f"deadletter/act/snooze/?ids={letter.pk}&back=detail",
        f"job/{job.pk}/change/",
        f"failuregroup/{group.pk}/change/",
        f"failuregroup/{group.pk}/do/resolve/",
        f"requeueoperation/new/?group={group.pk}",
        f"requeueoperation/new/?group={group.pk}&change=1",
        f"requeueoperation/{operation.pk}/change/",
        "queue/whatsapp-messages/do/pause/",
        "assignmentrule/add/",
    ]

    for address in pages:
        html = lead.get(f"/backstage/queueadmin/{address}").content.decode()
        assert "/backstage/queueadmin/" in html, address
        assert '"/admin/queueadmin/' not in html, address
