"""`manage.py queueadmin`: what it shows, what it changes, and how it exits."""

import io
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.utils import timezone
from django_apscheduler.models import DjangoJob

from queueadmin import queues, recurring
from queueadmin.brokers import RedisBroker
from queueadmin.management.arguments import USAGE
from queueadmin.management.commands.queueadmin import FAILED, FINDINGS, PARTLY, Command
from queueadmin.models import AuditEntry, DeadLetter, Job, Queue, RecoveryRun
from queueadmin.policies import Policy
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recover(broker: RedisBroker) -> None:
    """The actor that the site's schedule "recovery" names."""

    @dramatiq.actor(actor_name="queueadmin.recover")
    def recover() -> None:
        """Never run here."""


def run(*args: object) -> list[dict[str, Any]]:
    """Return what a sub-command says to machines."""
    out = io.StringIO()
    call_command("queueadmin", *map(str, args), "--format", "json", stdout=out)
    rows: list[dict[str, Any]] = json.loads(out.getvalue())
    return rows


def exits(*args: object) -> int | str | None:
    """Return the exit code of a sub-command that does not end well."""
    with pytest.raises(SystemExit) as ended:
        call_command("queueadmin", *map(str, args), stdout=io.StringIO())
    return ended.value.code


def test_status_counts_what_each_queue_has_to_do(settings: Any) -> None:
    settings.QUEUEADMIN = {"QUEUES": {"idle": Policy()}}
    waiting = make_job(queue="sms")
    make_job(queue="sms", state=JobState.RETRYING)
    make_job(queue="sms", state=JobState.COMPLETED)
    make_dead_letter(job={"queue": "mail"})
    queues.pause("mail", by=None, reason="provider outage")

    rows = {row["queue"]: row for row in run("status")}

    assert {"idle", "mail", "sms"} <= set(rows)
    assert (rows["sms"]["waiting"], rows["sms"]["retrying"]) == (1, 1)
    assert rows["sms"]["waiting_since"] == waiting.due_at.isoformat()
    assert (rows["mail"]["pending"], rows["mail"]["pause_reason"]) == (1, "provider outage")


def test_a_table_shows_foreign_text_as_text() -> None:
    make_dead_letter(error_class="[red]\x1b[31mError")
    out = io.StringIO()

    call_command("queueadmin", "deadletters", "--queue", "whatsapp-messages", stdout=out)

    assert "\x1b" not in out.getvalue()
    assert "[red]" in out.getvalue()


def test_jobs_filters_by_state_and_limits() -> None:
    for _ in range(3):
        make_job()
    retrying = make_job(state=JobState.RETRYING)

    assert [row["id"] for row in run("jobs", "--state", "failed")] == [retrying.pk]
    assert len(run("jobs", "--limit", 2)) == 2


def test_jobs_lists_the_newest_completed_ones_of_all_queues() -> None:
    at = timezone.now()
    for number in range(6):
        make_job(
            id=f"job-{number}",
            queue=f"q{number % 3}",
            state=JobState.DEAD if number == 1 else JobState.COMPLETED,
            enqueued_at=at - timedelta(minutes=number),
        )

    rows = run("jobs", "--state", "completed", "--limit", 3)

    assert [row["id"] for row in rows] == ["job-0", "job-2", "job-3"]


def test_job_shows_the_attempts_and_no_payload() -> None:
    letter = make_dead_letter()

    (row,) = run("job", letter.job_id)

    assert row["attempt_list"][0]["error_class"] == "RecipientRejected"
    assert "hunter2" not in json.dumps(row)


def test_job_that_is_not_there_says_where_to_look() -> None:
    with pytest.raises(CommandError, match="queueadmin jobs"):
        run("job", "nothing")


def test_requeue_by_queue_moves_pending_ones_of_that_queue_only(broker: RedisBroker) -> None:
    wanted, other = make_dead_letter(), make_dead_letter(job={"queue": "mail"})

    (result,) = run("requeue", "--queue", "whatsapp-messages", "--reason", "outage is over")

    assert (result["requested"], result["done"]) == (1, 1)
    assert Job.objects.get(pk=wanted.job_id).state == JobState.WAITING
    assert Job.objects.get(pk=other.job_id).state == JobState.DEAD
    assert AuditEntry.objects.get().reason == "outage is over"


def test_a_dry_run_changes_nothing() -> None:
    letter = make_dead_letter()

    (result,) = run("requeue", letter.pk, "--dry-run")

    assert (result["done"], result["dry_run"]) == (1, True)
    letter.refresh_from_db()
    assert letter.status == DeadLetterStatus.PENDING
    assert not AuditEntry.objects.exists()


def test_requeue_in_part_exits_with_3_and_not_at_all_with_1(broker: RedisBroker) -> None:
    letter = make_dead_letter()

    assert exits("requeue", letter.pk, letter.pk + 1) == 3
    assert exits("requeue", letter.pk) == 1


def test_requeue_of_more_than_the_limit_exits_with_3(broker: RedisBroker, settings: Any) -> None:
    settings.QUEUEADMIN = {"BULK_LIMIT": 1}
    for _ in range(2):
        make_dead_letter()

    assert exits("requeue", "--queue", "whatsapp-messages") == 3
    assert DeadLetter.objects.pending().count() == 1


@pytest.mark.parametrize("args", [(), (1, "--queue", "sms")])
def test_requeue_wants_ids_or_a_filter(args: tuple[object, ...]) -> None:
    with pytest.raises(CommandError, match="not both"):
        run("requeue", *args)


@pytest.mark.parametrize(
    ("permission", "args"),
    [
        ("requeue_deadletter", ("requeue", 1)),
        ("close_deadletter", ("discard", 1, "--reason", "x")),
        ("cancel_job", ("cancel", "1")),
        ("retry_job", ("retry", "1")),
        ("reschedule_job", ("reschedule", "1", "--at", "2030-01-01T08:00")),
        ("pause_queue", ("pause", "sms", "--reason", "x")),
        ("pause_queue", ("resume", "sms")),
        ("run_recovery", ("recover",)),
        ("run_schedule", ("schedule", "--run", "recovery")),
        ("clean_job", ("clean", "completed", "--older-than-hours", "24")),
    ],
)
def test_a_verb_in_a_users_name_needs_the_users_permission(
    broker: RedisBroker, permission: str, args: tuple[object, ...]
) -> None:
    make_user("eve", "view_job")

    with pytest.raises(CommandError, match=permission):
        run(*args, "--by", "eve")

    assert not AuditEntry.objects.exists()
    assert not RecoveryRun.objects.exists()


def test_discard_needs_a_reason() -> None:
    with pytest.raises(CommandError, match="needs a reason"):
        run("discard", make_dead_letter().pk)


def test_cancel_ends_a_scheduled_job(broker: RedisBroker) -> None:
    job = make_job(state=JobState.SCHEDULED, due_at=timezone.now() + timedelta(hours=1))

    run("cancel", job.pk)

    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_pause_and_resume_say_whether_they_changed_anything() -> None:
    assert run("pause", "sms", "--reason", "outage", "--minutes", 5)[0]["changed"]
    assert Queue.objects.get(pk="sms").paused_until is not None
    assert not run("pause", "sms", "--reason", "outage")[0]["changed"]
    assert run("resume", "sms")[0]["changed"]
    assert not run("resume", "sms")[0]["changed"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("completed",),
        ("waiting", "--older-than-hours", "1"),
        ("completed", "--older-than-hours", "-1"),
        ("--older-than-hours", "1"),
    ],
)
def test_clean_refuses_what_is_not_finished_or_has_no_age(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run("clean", *arguments)


def test_clean_counts_first_and_removes_in_steps(settings: Any) -> None:
    settings.QUEUEADMIN = {"BULK_LIMIT": 2}
    old = timezone.now() - timedelta(days=2)
    for _ in range(5):
        make_job(state=JobState.COMPLETED, finished_at=old)
    kept = make_job(state=JobState.COMPLETED, finished_at=timezone.now())
    letter = make_dead_letter(job={"finished_at": old})
    arguments = ("clean", "completed", "dead", "--older-than-hours", "24")

    assert run(*arguments, "--dry-run") == [
        {"matched": 6, "held": 1, "removed": 0, "dry_run": True}
    ]
    assert run(*arguments) == [{"matched": 6, "held": 1, "removed": 5, "dry_run": False}]
    assert set(Job.objects.values_list("pk", flat=True)) == {kept.pk, letter.job_id}


def test_recover_reports_what_it_found(broker: RedisBroker) -> None:
    (row,) = run("recover")

    recorded = RecoveryRun.objects.get()
    assert (recorded.found, recorded.durations_ms) == (row["found"], row["durations_ms"])


def test_schedule_lists_and_refuses_an_unknown_name(settings: Any) -> None:
    assert {row["name"] for row in run("schedule")} == set(settings.QUEUEADMIN["SCHEDULES"])
    with pytest.raises(CommandError, match="No schedule is named"):
        run("schedule", "--run", "nothing")


def test_schedule_runs_also_what_is_paused_and_is_audited(recover: None) -> None:
    recurring.pause("recovery", by=None, reason="a migration")

    (row,) = run("schedule", "--run", "recovery", "--reason", "to be sure")

    assert Job.objects.get(pk=row["job"]).state == JobState.WAITING
    entry = AuditEntry.objects.get(verb="run now")
    assert (entry.target_id, entry.reason) == ("recovery", "to be sure")
    shown = {each["name"]: each for each in run("schedule")}
    assert shown["recovery"]["is_paused"]
    assert shown["recovery"]["last_job"] == row["job"]


@pytest.mark.parametrize(
    "args",
    [
        ("requeue", "--queue", "whatsapp-messages"),
        ("discard", "--queue", "whatsapp-messages", "--reason", "x"),
        ("cancel", "waiting"),
        ("retry", "later"),
        ("reschedule", "later", "--at", "2030-01-01T08:00"),
        ("pause", "sms", "--reason", "x"),
        ("resume", "mail"),
        ("clean", "completed", "--older-than-hours", "1"),
        ("recover",),
        ("schedule", "--run", "recovery"),
    ],
    ids=lambda args: args[0],
)
def test_a_dry_run_of_every_verb_says_that_it_is_one_and_changes_nothing(
    recover: None, args: tuple[str, ...]
) -> None:
    make_dead_letter()
    make_job(pk="waiting")
    make_job(pk="later", state=JobState.SCHEDULED, due_at=timezone.now() + timedelta(hours=1))
    make_job(state=JobState.COMPLETED, finished_at=timezone.now() - timedelta(days=1))
    queues.pause("mail", by=None, reason="outage")
    models = (Job, DeadLetter, Queue, AuditEntry)
    before = [list(model.objects.order_by("pk").values()) for model in models]

    (row,) = run(*args, "--dry-run")

    assert row["dry_run"] is True
    assert [list(model.objects.order_by("pk").values()) for model in models] == before


def test_a_dry_run_of_pause_and_resume_tells_whether_they_would_change_anything() -> None:
    assert run("pause", "sms", "--dry-run")[0]["changed"]
    assert not run("resume", "sms", "--dry-run")[0]["changed"]
    queues.pause("sms", by=None, reason="outage")

    assert not run("pause", "sms", "--dry-run")[0]["changed"]
    assert run("resume", "sms", "--dry-run")[0]["changed"]


def test_a_dry_run_refuses_a_schedule_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="No schedule is named"):
        run("schedule", "--run", "nothing", "--dry-run")


def test_doctor_finds_that_no_scheduler_runs(broker: RedisBroker) -> None:
    def found() -> dict[str, Any]:
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("queueadmin", "doctor", "--format", "json", stdout=out)
        (row,) = [row for row in json.loads(out.getvalue()) if row["check"] == "scheduler"]
        return row

    never = found()
    stored = DjangoJob.objects.create(
        id="recovery", next_run_time=timezone.now() - timedelta(hours=1), job_state=b""
    )
    silent = found()
    DjangoJob.objects.filter(pk=stored.pk).update(
        next_run_time=timezone.now() + timedelta(minutes=1)
    )
    running = found()

    assert "runscheduler" in never["advice"]
    assert "recovery" in silent["found"]
    assert "runscheduler" in silent["advice"]
    assert running["is_good"]


def test_doctor_finds_that_no_schedule_recovers_or_removes(
    broker: RedisBroker, settings: Any
) -> None:
    def found(*names: str) -> dict[str, Any]:
        schedules = {name: declared[name] for name in names}
        settings.QUEUEADMIN = {**settings.QUEUEADMIN, "SCHEDULES": schedules}
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("queueadmin", "doctor", "--format", "json", stdout=out)
        (row,) = [row for row in json.loads(out.getvalue()) if row["check"] == "schedules"]
        return row

    declared = settings.QUEUEADMIN["SCHEDULES"]
    for name in ("recovery", "retention"):
        dramatiq.actor(actor_name=declared[name].actor, broker=broker)(print)
    neither, one, both = found(), found("recovery"), found("recovery", "retention")

    assert neither["found"] == "none runs queueadmin.recover or queueadmin.apply_retention"
    assert "queueadmin.recover every 5 minutes" in neither["advice"]
    assert one["found"] == "none runs queueadmin.apply_retention"
    assert "recover" not in one["advice"]
    assert both["is_good"]


def test_doctor_says_what_to_do_and_exits_with_4(broker: RedisBroker) -> None:
    out = io.StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("queueadmin", "doctor", "--format", "json", stdout=out)

    found = {row["check"]: row for row in json.loads(out.getvalue())}
    assert ended.value.code == 4
    assert "rundramatiq" in found["workers"]["advice"]
    assert found["broker"]["is_good"]
    assert found["database"]["is_good"]


def test_doctor_names_a_broker_that_does_not_answer(settings: Any, broker: RedisBroker) -> None:
    away = RedisBroker(url="redis://127.0.0.1:1/0", namespace="away")
    dramatiq.set_broker(away)
    out = io.StringIO()

    with pytest.raises(SystemExit):
        call_command("queueadmin", "doctor", "--format", "json", stdout=out)

    found = {row["check"]: row for row in json.loads(out.getvalue())}
    assert "Start the broker" in found["broker"]["advice"]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("requeue", 2**63), "is no id"),
        (("jobs", "--limit", 0), "not between"),
        (("reschedule", "x", "--at", "soon"), "is no time"),
    ],
)
def test_a_wrong_argument_is_named(args: tuple[object, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        run(*args)


@pytest.mark.parametrize(
    "args", [(), ("nothing",), ("status", "--nothing"), ("jobs", "--limit", "0"), ("pause",)]
)
def test_wrong_arguments_exit_with_2_from_a_shell(args: tuple[str, ...]) -> None:
    command = Command()
    command._called_from_command_line = True

    with pytest.raises(SystemExit) as ended:
        command.create_parser("manage.py", "queueadmin").parse_args([*args])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("requeue",), 2),
        (("requeue", 1, "--queue", "sms"), 2),
        (("cancel",), 2),
        (("pause", "sms", "--minutes", 0), 2),
        (("requeue", 1, "--by", "nobody"), 2),
        (("job", "nothing"), 1),
        (("discard", 1), 1),
    ],
)
def test_what_is_wrong_and_what_failed_have_codes_of_their_own(
    args: tuple[object, ...], code: int
) -> None:
    with pytest.raises(CommandError) as raised:
        run(*args)
    assert raised.value.returncode == code


def test_the_lists_exit_with_0_whatever_they_show() -> None:
    make_dead_letter()
    queues.pause("mail", by=None, reason="outage")

    for verb in ("status", "workers", "jobs", "deadletters", "schedule"):
        run(verb)


def test_the_exit_codes_in_the_docs_are_those_of_the_code() -> None:
    documented = re.findall(
        r"^\| (\d) \|", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE
    )

    assert [int(code) for code in documented] == [0, FAILED, USAGE, PARTLY, FINDINGS]


def test_wrong_settings_are_said_before_anything_is_done(settings: Any) -> None:
    settings.QUEUEADMIN = {"QUEUE": {}}

    with pytest.raises(SystemCheckError, match=r"queueadmin\.E001"):
        call_command("queueadmin", "status", skip_checks=False)
