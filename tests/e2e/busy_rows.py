"""Run inside a site by `manage.py shell`: a past for the pictures of a busy system.

The present is made by real jobs that really fail; see `tests.e2e.screenshots`. What took days
is written here as rows.
"""

import random
from datetime import timedelta

from django.contrib.auth.models import User

from queueadmin import assignment, deadletters, failuregroups, queues, recurring, triage
from queueadmin.clock import now
from queueadmin.fingerprints import fingerprint
from queueadmin.models import (
    Alert,
    AssignmentRule,
    Attempt,
    DeadLetter,
    FailureGroup,
    HourStatistic,
    MinuteStatistic,
    OperationItem,
    Queue,
    RecoveryRun,
    RequeueOperation,
)
from queueadmin.states import DeadLetterStatus, GroupStatus, ItemState, JobState, OperationStatus
from tests.queueadmin.rows import make_dead_letter, make_group

chance = random.Random(7)  # the same pictures each time
at = now()
anna, ben = User.objects.get(username="anna"), User.objects.get(username="ben")

#: Queue, actor -> jobs in a minute, share that fails, middle bucket of run time and of wait.
FLOWS = {
    ("order-processing", "order_status_update"): (38, 0.00, 4, 1),
    ("order-routing", "route_order"): (12, 0.01, 4, 2),
    ("vendor-fallback", "fall_back"): (3, 0.00, 3, 3),
    ("order-expiry", "expire_order"): (9, 0.00, 2, 1),
    ("whatsapp-messages", "send_whatsapp"): (41, 0.01, 5, 3),
    ("email-notifications", "send_email"): (26, 0.01, 6, 3),
    ("sms-notifications", "send_sms"): (14, 0.02, 5, 3),
    ("payment-reminders", "payment_reminder"): (2, 0.00, 4, 3),
    ("image-processing", "make_thumbnails"): (4, 0.03, 7, 5),
    ("credit-score-calculation", "calculate_credit_score"): (6, 0.00, 3, 2),
    ("report-generation", "generate_report"): (1, 0.02, 9, 6),
}
#: Since when a queue is in trouble, in minutes, and what share fails since then.
TROUBLE = {"whatsapp-messages": (24, 0.62), "email-notifications": (9, 0.35)}

#: Job, queue, error, text and how long ago they died, in hours.
PAST = (
    ("order_status_update", "order-processing", "OperationalError",
     "could not serialize access due to concurrent update", (0.3, 0.8, 1.4, 5, 9, 20, 44, 71, 120)),
    ("make_thumbnails", "image-processing", "UnidentifiedImageError",
     "cannot identify image file 'uploads/88/front.tif'", (2, 2.5, 13, 30, 55, 90, 140)),
    ("generate_report", "report-generation", "MemoryError", "", (7, 31, 100)),
    ("reconcile_accounts", "credit-reconciliation", "TimeLimitExceeded", "", (26, 27, 28, 29)),
    ("calculate_credit_score", "credit-score-calculation", "ZeroDivisionError",
     "division by zero", (5, 5.2, 5.4, 5.7, 6, 6.2)),
)  # fmt: skip


def write_statistics() -> None:
    """An hour of minutes, and the same hours of four weeks, by which the present is judged."""
    minute = at.replace(second=0, microsecond=0)
    rows: list[MinuteStatistic] = []
    for (queue, actor), (speed, share, run, wait) in FLOWS.items():
        since, trouble = TROUBLE.get(queue, (0, share))
        for ago in range(1, 60):
            rate = trouble if ago <= since else share
            numbers = _counted(speed, rate, run, wait)
            rows.append(
                MinuteStatistic(
                    minute=minute - timedelta(minutes=ago), queue=queue, actor=actor, shard=0,
                    **numbers,
                )
            )  # fmt: skip
    MinuteStatistic.objects.bulk_create(rows, ignore_conflicts=True)
    hour = minute.replace(minute=0)
    hours = []
    for (queue, actor), (speed, share, run, wait) in FLOWS.items():
        for day in range(1, 29):
            for offset in (-1, 0, 1):
                moment = hour - timedelta(days=day, hours=offset)
                numbers = _counted(speed * 60, share, run, wait)
                hours.append(HourStatistic(hour=moment, queue=queue, actor=actor, **numbers))
    HourStatistic.objects.bulk_create(hours, ignore_conflicts=True)


def _counted(speed: float, share: float, run: int, wait: int) -> dict[str, int]:
    total = max(round(chance.gauss(speed, speed / 5)), 0)
    failed = sum(chance.random() < share for _ in range(total))
    found = {"completed": total - failed, "retried": failed, "dead": 0}
    for name, middle, count in (("run", run, total), ("wait", wait, total - failed)):
        for _ in range(count):
            place = min(max(round(chance.gauss(middle, 0.8)), 0), 12)
            found[f"{name}_{place}"] = found.get(f"{name}_{place}", 0) + 1
    return found


def write_failures() -> None:
    """Dead letters of a week in groups, some of which somebody works on."""
    for actor, queue, error, text, hours in PAST:
        key = fingerprint(actor, error, text)
        for ago in hours:
            died = at - timedelta(hours=ago)
            failure = {"error_class": error, "error_message": text}
            letter = make_dead_letter(
                job={
                    "actor": actor, "queue": queue, "attempts": 3, "max_attempts": 3,
                    "enqueued_at": died - timedelta(minutes=2), "started_at": died,
                    "finished_at": died, **failure,
                },
                fingerprint=key, died_at=died, attempts=3, died_by="attempts_exhausted",
                release="5.2.0" if ago < 60 else "5.1.3", worker="web1:4121", **failure,
            )  # fmt: skip
            Attempt.objects.filter(job=letter.job_id).update(number=3, started_at=died, **failure)
        make_group(
            fingerprint=key, actor=actor, queue=queue, error_class=error, error_message=text,
            first_seen_at=at - timedelta(hours=max(hours)), deaths=len(hours),
            last_seen_at=at - timedelta(hours=min(hours)), first_release="5.1.3",
            last_release="5.2.0",
        )  # fmt: skip
    by_actor = {group.actor: group for group in FailureGroup.objects.all()}
    reports, score = by_actor["generate_report"], by_actor["calculate_credit_score"]
    thumbnails = by_actor["make_thumbnails"]
    failuregroups.assign(by_actor["order_status_update"].pk, to=ben, by=anna)
    failuregroups.annotate(
        by_actor["order_status_update"].pk, by=ben,
        text="Two routers write the same order. A retry mends it; @anna, the fix is in 5.2.2.",
    )  # fmt: skip
    failuregroups.assign(thumbnails.pk, to=anna, by=anna)
    failuregroups.snooze(
        reports.pk, by=anna, until=at + timedelta(days=2), reason="More memory on Tuesday."
    )
    failuregroups.resolve(
        score.pk, by=ben, what_was_done="Accounts without an invoice are skipped."
    )
    failuregroups.resolve(thumbnails.pk, by=anna, what_was_done="TIFF is refused at the upload.")
    FailureGroup.objects.filter(pk=thumbnails.pk).update(
        status=GroupStatus.REGRESSED, regressed_at=at - timedelta(hours=2), regressions=1
    )
    letters = list(DeadLetter.objects.filter(actor="order_status_update").order_by("-died_at"))
    deadletters.assign([letter.pk for letter in letters[:4]], to=ben, by=anna)
    triage.set_due([letters[0].pk, letters[1].pk], at=at + timedelta(hours=20), by=anna)
    triage.set_due([letters[3].pk], at=at - timedelta(hours=3), by=anna)
    deadletters.set_urgency([letters[0].pk], urgency=2, by=anna)
    deadletters.set_urgency([letters[1].pk], urgency=3, by=anna)
    triage.snooze(
        DeadLetter.objects.filter(actor="generate_report").values_list("pk", flat=True),
        by=anna, until=at + timedelta(days=2), reason="More memory on Tuesday.",
    )  # fmt: skip
    triage.link_ticket([letters[0].pk], url="https://tickets.example/OPS-311", by=ben)
    old = list(DeadLetter.objects.filter(actor="calculate_credit_score"))
    deadletters.close([old[0].pk], by=ben, reason="The account is closed.")
    _write_operations(old[1:], score)


def _write_operations(letters: list[DeadLetter], group: FailureGroup) -> None:
    """One that went well, and one that stopped by itself."""
    for name, status, ago, failed in (
        ("Scores after 5.2.1", OperationStatus.FINISHED, 4, 0),
        ("Accounts again", OperationStatus.STOPPED, 3, 2),
    ):
        begun = at - timedelta(hours=ago)
        operation = RequeueOperation.objects.create(
            name=name, reason="The fix is deployed.", status=status, owner=ben, owner_name="ben",
            group=group, rate=5, canary=2, stop_at_percent=20, total=5, created_at=begun,
            start_at=begun, started_at=begun, note="2 of 2 failed again, 20 % is the limit.",
        )  # fmt: skip
        rows = (
            letters
            if status == OperationStatus.FINISHED
            else list(DeadLetter.objects.filter(actor="reconcile_accounts"))
        )
        OperationItem.objects.bulk_create(
            OperationItem(
                operation=operation,
                dead_letter=letter,
                position=position,
                state=(
                    ItemState.RECOVERED
                    if not failed
                    else ItemState.FAILED
                    if position <= failed
                    else ItemState.WAITING
                ),
                sent_at=begun,
                ended_at=begun,
            )
            for position, letter in enumerate(rows, start=1)
        )
    for letter in letters:
        letter.job.__class__.objects.filter(pk=letter.job_id).update(state=JobState.COMPLETED)
    DeadLetter.objects.filter(pk__in=[letter.pk for letter in letters]).update(
        status=DeadLetterStatus.RECOVERED,
        requeued_by=ben,
        requeued_at=at - timedelta(hours=4),
        recovered_at=at - timedelta(hours=4),
    )


def write_rest() -> None:
    """What runs and stands still, and who looked after it."""
    for minutes, found in (
        (31, {}),
        (26, {"lost in the broker": 17, "dead workers' jobs": 4}),
        (21, {"overdue": 3}),
        (16, {}),
        (11, {}),
        (6, {"finished, still in the broker": 1}),
    ):
        begun = at - timedelta(minutes=minutes)
        RecoveryRun.objects.create(
            started_at=begun, finished_at=begun + timedelta(milliseconds=40 + 30 * sum(found.values())),
            found=found,
            durations_ms={
                name: 9 + 28 * found.get(name, 0)
                for name in (
                    "overdue",
                    "dead workers' jobs",
                    "lost in the broker",
                    "finished, still in the broker",
                )
            },
        )  # fmt: skip
    queues.pause("report-generation", by=anna, reason="More memory on Tuesday.", until=None)
    Queue.objects.filter(name="report-generation").update(paused_at=at - timedelta(minutes=95))
    from orders.actors import calculate_credit_score, generate_report

    for number in range(14):
        generate_report.send(number)
    for number in range(3):
        calculate_credit_score.send_with_options(
            args=(number,), delay=timedelta(hours=5 + number) // timedelta(milliseconds=1)
        )
    for queue, actor, error, owner, hours in (
        ("sms-notifications", "", "", anna, 8),
        ("", "make_*", "", anna, 24),
        ("order-*", "", "", ben, 4),
        ("", "", "OutcomeUnknown", ben, 2),
    ):
        AssignmentRule.objects.create(
            queue=queue, actor=actor, error_class=error, assignee=owner, due_hours=hours,
            position=10 * (AssignmentRule.objects.count() + 1),
        )  # fmt: skip
    assignment.apply()
    for kind, subject, text, hours in (
        ("stuck", "email-notifications", "The oldest of 212 waiting jobs of email-notifications was due 17 minutes ago.", 30),
        ("no_worker", "", "No worker process is alive; nothing runs.", 52),
    ):  # fmt: skip
        Alert.objects.create(
            kind=kind, subject=subject, queue=subject, text=text,
            opened_at=at - timedelta(hours=hours), closed_at=at - timedelta(hours=hours - 0.4),
        )  # fmt: skip
    for name in ("recovery", "credit-reconciliation", "credit-scores"):
        recurring.run_now(name, by=anna, reason="To see that it works.")


write_statistics()
write_failures()
write_rest()
