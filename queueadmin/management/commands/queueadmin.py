"""Everything staff do by hand, from a shell: one sub-command per list or verb."""

import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import autodiscover_modules
from django.utils.timezone import is_naive, make_aware
from rich.console import Console
from rich.progress import Progress

from queueadmin import (
    audit,
    deadletters,
    doctor,
    jobs,
    overview,
    queues,
    recovery,
    scheduling,
    workers,
)
from queueadmin.clock import now
from queueadmin.conf import settings
from queueadmin.deadletters import BulkResult
from queueadmin.exceptions import QueueadminError
from queueadmin.management.printing import write
from queueadmin.models import DeadLetter, Job, ScheduleOccasion
from queueadmin.states import DeadLetterStatus, JobState

PARTLY = 2
_MOST_ROWS = 1_000

Verb = Callable[[list[Any]], BulkResult]


class Command(BaseCommand):
    help = (
        "Look at queues, jobs, dead letters and workers, and act on them. Exit code 0: done; "
        "1: failed, or nothing could be done; 2: done in part, or wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        def add(name: str, words: str, *, changes: bool = False) -> CommandParser:
            sub: CommandParser = verbs.add_parser(name, help=words, description=words)
            sub.add_argument("--format", choices=("table", "json"), default="table")
            if changes:
                sub.add_argument("--by", metavar="USER", help="act as this user; else as a program")
                sub.add_argument("--reason", default="", help="why; kept in the audit")
            return sub

        def add_bulk(name: str, words: str, *, of: str) -> CommandParser:
            sub = add(name, words, changes=True)
            sub.add_argument("ids", nargs="*", metavar="ID", type=_key if of == "letters" else str)
            sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
            if of == "letters":
                sub.add_argument("--queue", help="every pending one of this queue")
                sub.add_argument("--actor", help="every pending one of this actor")
                sub.add_argument("--error", help="every pending one with this error class")
            return sub

        add("status", "Show what each queue has to do.")
        add("workers", "Show the worker processes that are alive.")
        sub = add("jobs", "List jobs, newest first.")
        sub.add_argument("--state", choices=[*JobState.values, "failed"], default="")
        sub.add_argument("--queue", default="")
        sub.add_argument("--actor", default="")
        sub.add_argument("--limit", type=_limit, default=50)
        add("job", "Show a job and its attempts.").add_argument("id")
        sub = add("deadletters", "List dead letters, newest first.")
        sub.add_argument("--status", choices=DeadLetterStatus.values)
        sub.add_argument("--queue")
        sub.add_argument("--limit", type=_limit, default=50)
        add_bulk("requeue", "Give dead letters a new round of attempts.", of="letters")
        add_bulk("discard", "Mark dead letters permanently failed.", of="letters")
        add_bulk("cancel", "Cancel jobs.", of="jobs")
        add_bulk("retry", "Run scheduled and retrying jobs now.", of="jobs")
        sub = add_bulk("reschedule", "Make jobs due at another time.", of="jobs")
        sub.add_argument("--at", required=True, type=_moment, help="2030-01-31T08:00, or with zone")
        sub = add("pause", "Stop new starts of a queue's jobs.", changes=True)
        sub.add_argument("queue")
        sub.add_argument("--minutes", type=int, help="go on by itself after so long")
        add("resume", "Let a queue's jobs start again.", changes=True).add_argument("queue")
        sub = add("recover", "Compare ledger and broker, and repair.", changes=True)
        sub.add_argument("--dry-run", action="store_true", help="only count what would be done")
        sub = add("schedule", "List schedules, or enqueue the job of one now.")
        sub.add_argument("--run", metavar="NAME", help="enqueue this one's job now")
        add("doctor", "Examine settings, broker, database, clock, workers and schedules.")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Do one verb; see the module's exit codes."""
        # Importing them declares the actors, which a requeue and a schedule need.
        autodiscover_modules(*getattr(django_settings, "DRAMATIQ_AUTODISCOVER_MODULES", ["tasks"]))
        try:
            getattr(self, f"_{verb}")(**options)
        except (QueueadminError, ValueError) as error:
            raise CommandError(str(error)) from error

    def _status(self, **options: Any) -> None:
        self._write([asdict(row) for row in overview.queues()], options)

    def _workers(self, **options: Any) -> None:
        rows = workers.alive().values(
            "id", "host", "pid", "threads", "queues", "release", "started_at", "seen_at", "wish"
        )
        self._write([{**row, "queues": sorted(row["queues"])} for row in rows], options)

    def _jobs(self, *, state: str, queue: str, actor: str, limit: int, **options: Any) -> None:
        rows = jobs.list(state=state, queue=queue, actor=actor).values(
            "id", "queue", "actor", "state", "attempts", "enqueued_at", "due_at", "error_class"
        )
        self._write([dict(row) for row in rows[:limit]], options)

    def _job(self, *, id: str, **options: Any) -> None:  # the argument's name
        try:
            job = jobs.get(id)
        except Job.DoesNotExist:
            raise CommandError(
                f"No job has the id {id!r}; it may be gone by retention. "
                "`queueadmin jobs` lists those there are."
            ) from None
        shown = ("id", "queue", "actor", "state", "attempts", "max_attempts", "requeues",
                 "enqueued_at", "due_at", "started_at", "finished_at", "worker", "error_class",
                 "error_message")  # fmt: skip
        tried = ("number", "outcome", "started_at", "duration_ms", "worker", "error_class",
                 "error_message")  # fmt: skip
        facts = {name: getattr(job, name) for name in shown}
        attempts = list(job.attempt_set.order_by("id").values(*tried)[:_MOST_ROWS])
        if options["format"] == "json":
            self._write([{**facts, "attempt_list": attempts}], options)
            return
        self._write([{"field": name, "value": value} for name, value in facts.items()], options)
        self._write(attempts, options)

    def _deadletters(
        self, *, status: str | None, queue: str | None, limit: int, **options: Any
    ) -> None:
        wanted = {"status": status, "queue": queue}
        rows = DeadLetter.objects.filter(**{key: value for key, value in wanted.items() if value})
        shown = rows.order_by("-died_at", "-pk").values(
            "id",
            "job_id",
            "queue",
            "actor",
            "status",
            "died_by",
            "error_class",
            "died_at",
            "deaths",
        )
        self._write([dict(row) for row in shown[:limit]], options)

    def _requeue(self, *, by: str | None, reason: str, **options: Any) -> None:
        user = _user(by)
        ids = _letters(**options)
        if options["dry_run"]:
            self._finish(deadletters.preview(ids, "requeue"), options)
            return
        self._in_steps(ids, lambda step: deadletters.requeue(step, by=user, reason=reason), options)

    def _discard(self, *, by: str | None, reason: str, **options: Any) -> None:
        user = _user(by)
        ids = _letters(**options)
        if options["dry_run"]:
            self._finish(deadletters.preview(ids, "close"), options)
            return
        self._in_steps(ids, lambda step: deadletters.close(step, by=user, reason=reason), options)

    def _cancel(self, *, ids: list[str], by: str | None, reason: str, **options: Any) -> None:
        user = _user(by)
        self._on_jobs(
            "cancel", ids, lambda step: jobs.cancel(step, by=user, reason=reason), options
        )

    def _retry(self, *, ids: list[str], by: str | None, reason: str, **options: Any) -> None:
        user = _user(by)
        self._on_jobs("retry", ids, lambda step: jobs.retry(step, by=user, reason=reason), options)

    def _reschedule(
        self, *, ids: list[str], at: datetime, by: str | None, reason: str, **options: Any
    ) -> None:
        user = _user(by)

        def act(step: list[Any]) -> BulkResult:
            return jobs.reschedule(step, at, by=user, reason=reason)

        self._on_jobs("reschedule", ids, act, options)

    def _pause(
        self, *, queue: str, minutes: int | None, by: str | None, reason: str, **options: Any
    ) -> None:
        if minutes is not None and not 0 < minutes <= 366 * 24 * 60:
            raise CommandError("--minutes is between 1 and a year's.")
        until = now() + timedelta(minutes=minutes) if minutes is not None else None
        changed = queues.pause(queue, by=_user(by), reason=reason, until=until)
        self._write([{"queue": queue, "changed": changed, "paused_until": until}], options)

    def _resume(self, *, queue: str, by: str | None, reason: str, **options: Any) -> None:
        changed = queues.resume(queue, by=_user(by), reason=reason)
        self._write([{"queue": queue, "changed": changed}], options)

    def _recover(self, *, by: str | None, dry_run: bool, **options: Any) -> None:
        user = _user(by)
        if user is not None:
            audit.require(user, "run_recovery")
        run = recovery.recover(by=user, dry_run=dry_run)
        if run is None:
            raise CommandError("Another recovery is under way; wait for its end.")
        self._write([{"run": run.pk, "dry_run": dry_run, "found": run.found}], options)

    def _schedule(self, *, run: str | None, **options: Any) -> None:
        if run is not None:
            scheduling.run_now(run)
            self._write([{"schedule": run, "enqueued": True}], options)
            return
        rows = []
        for name, schedule in settings.SCHEDULES.items():
            last = ScheduleOccasion.objects.filter(schedule=name).order_by("-due_at").first()
            rows.append({
                "name": name,
                "actor": schedule.actor,
                "when": str(schedule),
                "last_due": last.due_at if last else None,
            })  # fmt: skip
        self._write(rows, options)

    def _doctor(self, **options: Any) -> None:
        findings = doctor.examine()
        self._write([{**asdict(one), "is_good": one.is_good} for one in findings], options)
        if not all(finding.is_good for finding in findings):
            sys.exit(1)

    def _on_jobs(self, verb: str, ids: list[str], act: Verb, options: dict[str, Any]) -> None:
        if not ids:
            raise CommandError("Name at least one job by its id.")
        if options["dry_run"]:
            self._finish(jobs.preview(ids, verb), options)
            return
        self._in_steps(ids, act, options)

    def _in_steps(self, ids: list[Any], act: Verb, options: dict[str, Any]) -> None:
        """Act batch by batch under a progress bar, which only a terminal shows."""
        wanted = list(dict.fromkeys(ids))
        left_out = max(len(wanted) - settings.BULK_LIMIT, 0)
        wanted = wanted[: settings.BULK_LIMIT]
        done, skipped = 0, Counter[str]()
        # On stderr, so that stdout stays readable for machines.
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            for step in bar.track(range(0, len(wanted), deadletters.BATCH)):
                result = act(wanted[step : step + deadletters.BATCH])
                done += result.done + getattr(result, "stopping", 0)
                skipped.update(result.skipped)
        if left_out:
            skipped[deadletters.Skip.OVER_LIMIT.value] += left_out
        self._finish(BulkResult(len(wanted) + left_out, done, dict(skipped)), options)

    def _finish(self, result: BulkResult, options: dict[str, Any]) -> None:
        self._write([{**asdict(result), "dry_run": options["dry_run"]}], options)
        if result.done < result.requested:
            sys.exit(PARTLY if result.done else 1)

    def _write(self, rows: Iterable[dict[str, Any]], options: dict[str, Any]) -> None:
        write(self.stdout, list(rows), output_format=options["format"])


def _letters(
    *, ids: list[int], queue: str | None, actor: str | None, error: str | None, **options: Any
) -> list[int]:
    """Return the ids given, or those a filter finds; one more than may be done at once."""
    wanted = {"queue": queue, "actor": actor, "error_class": error}
    named = {name: value for name, value in wanted.items() if value}
    if bool(ids) == bool(named):
        raise CommandError("Name dead letters by id, or by --queue, --actor, --error; not both.")
    if ids:
        return ids
    found = DeadLetter.objects.pending().filter(**named).order_by("pk")
    return list(found.values_list("pk", flat=True)[: settings.BULK_LIMIT + 1])


def _user(name: str | None) -> Any:
    """Return the user who acts; None, a program, where none is named."""
    if name is None:
        return None
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist:
        raise CommandError(f"No user is named {name!r}.") from None


def _key(text: str) -> int:
    number = int(text)
    # SQLite raises on more than its largest integer.
    if not 0 < number < 2**63:
        raise ArgumentTypeError(f"{text} is no id of a dead letter")
    return number


def _limit(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MOST_ROWS:
        raise ArgumentTypeError(f"{number} is not between 1 and {_MOST_ROWS}")
    return number


def _moment(text: str) -> datetime:
    moment = parse_datetime(text)
    if moment is None:
        raise ArgumentTypeError(f"{text!r} is no time, such as 2030-01-31T08:00+01:00")
    return make_aware(moment) if is_naive(moment) else moment
