"""What has been kept long enough goes; what still needs somebody stays."""

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django_apscheduler.models import DjangoJob, DjangoJobExecution

from queueadmin import retention
from queueadmin.exceptions import NotPermitted
from queueadmin.models import Attempt, AuditEntry, DeadLetter, Job, ScheduleOccasion
from queueadmin.policies import Policy
from queueadmin.states import DeadLetterStatus, JobState
from tests.queueadmin.rows import make_dead_letter, make_job, make_user

pytestmark = pytest.mark.django_db


def ended(state, *, hours, **fields):
    return make_job(state=state, finished_at=timezone.now() - timedelta(hours=hours), **fields)


def dead(status, *, hours, **fields):
    at = timezone.now() - timedelta(hours=hours)
    stamp = {
        DeadLetterStatus.PERMANENTLY_FAILED: {"closed_at": at},
        DeadLetterStatus.RECOVERED: {"recovered_at": at},
    }.get(status, {})
    return make_dead_letter(job={"finished_at": at, **fields}, status=status, **stamp)


def kept():
    return set(Job.objects.values_list("pk", flat=True))


def test_jobs_go_after_the_time_of_their_state():
    ended(JobState.COMPLETED, hours=25)
    ended(JobState.CANCELLED, hours=169)
    dead(DeadLetterStatus.PERMANENTLY_FAILED, hours=169)
    dead(DeadLetterStatus.RECOVERED, hours=169, state=JobState.COMPLETED)
    young = {
        ended(JobState.COMPLETED, hours=23).pk,
        ended(JobState.CANCELLED, hours=167).pk,
        dead(DeadLetterStatus.PERMANENTLY_FAILED, hours=167).job_id,
    }

    removed = retention.apply_retention()

    assert (removed["completed"], removed["cancelled"], removed["dead"]) == (2, 1, 1)
    assert kept() == young
    assert Attempt.objects.count() == DeadLetter.objects.count() == 1


def test_records_of_schedules_go_after_a_week_but_the_last_of_each():
    at = timezone.now()
    stored = DjangoJob.objects.create(id="hourly", job_state=b"")
    for due_at in (at - timedelta(days=9), at - timedelta(days=8), at - timedelta(days=6)):
        ScheduleOccasion.objects.create(schedule="hourly", due_at=due_at, job_id="x")
        DjangoJobExecution.objects.create(job=stored, run_time=due_at, status="Executed")
    ScheduleOccasion.objects.create(schedule="yearly", due_at=at - timedelta(days=99), job_id="x")

    retention.apply_retention()

    kept_ones = ScheduleOccasion.objects.order_by("schedule").values_list("schedule", "due_at")
    assert [name for name, _due in kept_ones] == ["hourly", "yearly"]
    assert kept_ones[0][1] == DjangoJobExecution.objects.get().run_time == at - timedelta(days=6)


@pytest.mark.parametrize("status", [DeadLetterStatus.PENDING, DeadLetterStatus.REQUEUED])
@pytest.mark.parametrize("state", [JobState.DEAD, JobState.CANCELLED, JobState.COMPLETED])
def test_a_job_with_an_open_dead_letter_is_kept_for_ever(status, state):
    letter = dead(status, hours=100_000, state=state)

    retention.apply_retention()
    cleaned = retention.clean([state], timedelta(0), by=None)

    assert kept() == {letter.job_id}
    assert (cleaned.matched, cleaned.removed, cleaned.held) == (1, 0, 1)


def test_a_queue_may_keep_its_jobs_longer_or_shorter(settings):
    long = Policy(keep_completed=timedelta(days=30), keep_cancelled=24, keep_dead=0.5)
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "QUEUES": {"audited": long}}
    wanted = {
        ended(JobState.COMPLETED, hours=29 * 24, queue="audited").pk,
        ended(JobState.CANCELLED, hours=23, queue="audited").pk,
        ended(JobState.CANCELLED, hours=25).pk,
    }
    ended(JobState.COMPLETED, hours=31 * 24, queue="audited")
    ended(JobState.COMPLETED, hours=25)
    ended(JobState.CANCELLED, hours=25, queue="audited")
    dead(DeadLetterStatus.PERMANENTLY_FAILED, hours=1, queue="audited")

    retention.apply_retention()

    assert kept() == wanted


@pytest.mark.parametrize("keep", [-1, timedelta(seconds=-1), float("nan"), 1e12, "day"])
def test_a_time_that_is_none_is_refused(keep):
    with pytest.raises(ImproperlyConfigured):
        Policy(keep_completed=keep)


def test_small_batches_remove_everything(monkeypatch):
    monkeypatch.setattr(retention, "_BATCH", 3)
    for _ in range(10):
        ended(JobState.COMPLETED, hours=30)

    assert retention.apply_retention()["completed"] == 10


def test_cleaning_removes_by_state_age_and_queue_and_is_kept_in_the_trail():
    ended(JobState.COMPLETED, hours=5, queue="a")
    wanted = {
        ended(JobState.COMPLETED, hours=3, queue="a").pk,
        ended(JobState.COMPLETED, hours=5, queue="b").pk,
        ended(JobState.CANCELLED, hours=5, queue="a").pk,
        make_job(state=JobState.WAITING, queue="a").pk,
    }
    anna = make_user("anna", "clean_job")
    ask = {"queue": "a", "by": anna, "reason": "disk full"}

    dry = retention.clean(["completed"], timedelta(hours=4), dry_run=True, **ask)
    assert (dry.matched, dry.removed, len(kept())) == (1, 0, 5)
    assert not AuditEntry.objects.exists()
    done = retention.clean(["completed"], timedelta(hours=4), **ask)
    again = retention.clean(["completed"], timedelta(hours=4), **ask)

    assert (done.removed, again.removed) == (1, 0)
    assert kept() == wanted
    entry = AuditEntry.objects.order_by("pk").first()
    assert (entry.verb, entry.target_id, entry.user_name, entry.reason) == (
        "clean",
        "a",
        "anna",
        "disk full",
    )
    assert entry.detail["states"] == ["completed"]


@pytest.mark.parametrize("states", [[], ["waiting"], ["completed", "active"], ["nonsense"]])
def test_what_is_not_over_cannot_be_cleaned(states):
    make_job(state=JobState.WAITING)

    with pytest.raises(ValueError, match="Only jobs that have ended"):
        retention.clean(states, timedelta(0), by=None)
    assert len(kept()) == 1


def test_cleaning_takes_a_permission_and_is_bounded(settings):
    settings.QUEUEADMIN = {**settings.QUEUEADMIN, "BULK_LIMIT": 2}
    for _ in range(5):
        ended(JobState.COMPLETED, hours=5)

    with pytest.raises(NotPermitted):
        retention.clean(["completed"], timedelta(0), by=make_user("viewer", "view_job"))
    assert len(kept()) == 5
    cleaned = retention.clean(["completed"], timedelta(0), by=None)

    assert (cleaned.removed, cleaned.left) == (2, 3)
    with pytest.raises(ValueError, match="older_than"):
        retention.clean(["completed"], timedelta(-1), by=None)
