"""Everything staff do by hand, from a shell: one sub-command per list or verb."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import F
from dramatiq import get_broker
from rich.console import Console
from rich.progress import Progress

from queueadmin import (
    alerts,
    backlog,
    deadletters,
    doctor,
    effects,
    jobs,
    listing,
    overview,
    queues,
    recovery,
    recurring,
    relocating,
    retention,
    watching,
    workers,
)
from queueadmin.brokers.transport import BrokerUnavailable
from queueadmin.clock import now
from queueadmin.conf import settings
from queueadmin.deadletters import BulkResult
from queueadmin.exceptions import QueueadminError
from queueadmin.management import arguments, verbs
from queueadmin.management.arguments import MOST_ROWS, USAGE
from queueadmin.management.printing import write
from queueadmin.models import Alert, DeadLetter, Job, Queue
from queueadmin.states import JobState

#: Exit codes; 2 is also what the parser of arguments exits with.
FAILED, PARTLY, FINDINGS = 1, 3, 4

Verb = Callable[[list[Any]], BulkResult]


class Command(BaseCommand):
    help = (
        "Look at queues, jobs, dead letters and workers, and act on them. Exit code 0: done; "
        "1: failed, or nothing could be done; 2: wrong arguments; 3: done in part; 4: `doctor` found "
        "something."
    )
    # What the settings of queues say is checked; the pages are not, whose import takes longer
    # than most of what is asked for here.
    requires_system_checks = [Tags.compatibility]

    def add_arguments(self, parser: CommandParser) -> None:
        verbs.add(parser)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        """Do one verb; see the module's exit codes."""
        try:
            getattr(self, f"_{verb}".replace("-", "_"))(**options)
        except BrokerUnavailable as error:
            raise CommandError(
                f"A message server does not answer: {error}. The ledger keeps all jobs; start "
                "the server, or correct its address, and call again."
            ) from error
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
        found = jobs.list(state=state, queue=queue, actor=actor)
        if state == JobState.COMPLETED and not (queue or actor):
            ids = listing.newest(JobState.COMPLETED, limit)
            found = found if ids is None else found.filter(pk__in=ids)
        rows = found.values(
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
        attempts = list(job.attempt_set.order_by("id").values(*tried)[:MOST_ROWS])
        told = ("name", "state", "begun_at", "done_at")
        effect_list = [dict(row) for row in job.effect_set.order_by("id").values(*told)]
        if options["format"] == "json":
            lists = {"attempt_list": attempts, "effect_list": effect_list}
            self._write([{**facts, **lists}], options)
            return
        self._write([{"field": name, "value": value} for name, value in facts.items()], options)
        self._write(attempts, options)
        if effect_list:
            self._write(effect_list, options)

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

    def _requeue(self, *, by: str | None, reason: str, confirm: str, **options: Any) -> None:
        user = arguments.user(by)
        ids = arguments.letters(**options)
        if options["dry_run"]:
            self._finish(deadletters.preview(ids, "requeue"), options)
            return
        if confirm and len(ids) != 1:
            raise CommandError("--confirm is for one dead letter, named by its id.")

        def act(step: list[Any]) -> BulkResult:
            return deadletters.requeue(step, by=user, reason=reason, confirmed=confirm)

        self._in_steps(ids, act, options)

    def _discard(self, *, by: str | None, reason: str, **options: Any) -> None:
        user = arguments.user(by)
        ids = arguments.letters(**options)
        if options["dry_run"]:
            self._finish(deadletters.preview(ids, "close"), options)
            return
        self._in_steps(ids, lambda step: deadletters.close(step, by=user, reason=reason), options)

    def _cancel(self, *, ids: list[str], by: str | None, reason: str, **options: Any) -> None:
        user = arguments.user(by)
        self._on_jobs(
            "cancel", ids, lambda step: jobs.cancel(step, by=user, reason=reason), options
        )

    def _retry(self, *, ids: list[str], by: str | None, reason: str, **options: Any) -> None:
        user = arguments.user(by)
        self._on_jobs("retry", ids, lambda step: jobs.retry(step, by=user, reason=reason), options)

    def _reschedule(
        self, *, ids: list[str], at: datetime, by: str | None, reason: str, **options: Any
    ) -> None:
        user = arguments.user(by)

        def act(step: list[Any]) -> BulkResult:
            return jobs.reschedule(step, at, by=user, reason=reason)

        self._on_jobs("reschedule", ids, act, options)

    def _pause(
        self,
        *,
        queue: str,
        minutes: int | None,
        by: str | None,
        reason: str,
        dry_run: bool,
        **options: Any,
    ) -> None:
        if minutes is not None and not 0 < minutes <= 366 * 24 * 60:
            raise CommandError("--minutes is between 1 and a year's.", returncode=USAGE)
        user = arguments.user(by)
        until = now() + timedelta(minutes=minutes) if minutes is not None else None
        if dry_run:
            changed = not _is_paused(queue)
        else:
            changed = queues.pause(queue, by=user, reason=reason, until=until)
        row = {"queue": queue, "changed": changed, "paused_until": until, "dry_run": dry_run}
        self._write([row], options)

    def _resume(
        self, *, queue: str, by: str | None, reason: str, dry_run: bool, **options: Any
    ) -> None:
        user = arguments.user(by)
        changed = _is_paused(queue) if dry_run else queues.resume(queue, by=user, reason=reason)
        self._write([{"queue": queue, "changed": changed, "dry_run": dry_run}], options)

    def _clean(
        self,
        *,
        states: list[str],
        queue: str | None,
        older_than_hours: timedelta,
        by: str | None,
        reason: str,
        dry_run: bool,
        **options: Any,
    ) -> None:
        def clean(*, dry_run: bool) -> retention.Cleaned:
            return retention.clean(
                states, older_than_hours, queue, by=user, reason=reason, dry_run=dry_run
            )

        user = arguments.user(by)
        found = clean(dry_run=True)
        removed = 0
        if not dry_run:
            number = found.matched - found.held
            # On stderr, so that stdout stays readable for machines.
            console = Console(stderr=True)
            with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
                task = bar.add_task("Removing", total=number)
                # One call removes BULK_LIMIT at most.
                while (step := clean(dry_run=False)).removed:
                    removed += step.removed
                    bar.update(task, completed=removed)
                    if not step.left:
                        break
        row = {"matched": found.matched, "held": found.held, "removed": removed}
        self._write([{**row, "dry_run": dry_run}], options)

    def _recover(self, *, by: str | None, dry_run: bool, **options: Any) -> None:
        run = recovery.recover(by=arguments.user(by), dry_run=dry_run)
        if run is None:
            raise CommandError("Another recovery is under way; wait for its end.")
        row = {"run": run.pk, "dry_run": dry_run, "found": run.found}
        self._write([{**row, "durations_ms": run.durations_ms}], options)

    def _migrate_broker(
        self,
        *,
        source: str,
        from_namespace: str,
        wait: int,
        by: str | None,
        reason: str,
        **options: Any,
    ) -> None:
        broker: Any = get_broker()
        parts = urlsplit(source)
        name = f"{parts.scheme}://{parts.hostname or ''}:{parts.port or ''}{parts.path} {from_namespace}"
        old = relocating.transport_of(source, from_namespace)
        try:
            if options["dry_run"]:
                found = relocating.preview(old)
            else:
                with _told("moving") as tell:
                    found = relocating.relocate(
                        old,
                        broker,
                        name=name,
                        by=arguments.user(by),
                        reason=reason,
                        patience=wait,
                        tell=tell,
                    )
        finally:
            old.close()
        self._write([{**asdict(found), "dry_run": options["dry_run"]}], options)
        if not (found.is_finished or options["dry_run"]):
            sys.exit(PARTLY)

    def _adopt_backlog(
        self, *, url: str, namespace: str, by: str | None, reason: str, **options: Any
    ) -> None:
        broker: Any = get_broker()
        with closing(backlog.plain_of(url, namespace, broker)) as plain:
            if options["dry_run"]:
                found = backlog.preview(plain)
            else:
                with _told("adopting") as tell:
                    found = backlog.adopt(
                        plain,
                        broker,
                        by=arguments.user(by),
                        reason=reason,
                        tell=tell,
                    )
        self._write([{**asdict(row), "dry_run": options["dry_run"]} for row in found], options)
        if not options["dry_run"] and any(row.held for row in found):
            sys.exit(PARTLY)

    def _hand_back(
        self, *, url: str, namespace: str, by: str | None, reason: str, **options: Any
    ) -> None:
        broker: Any = get_broker()
        if options["dry_run"]:
            found = backlog.preview_hand_back()
        else:
            with (
                closing(backlog.plain_of(url, namespace, broker)) as plain,
                _told("handing back") as tell,
            ):
                found = backlog.hand_back(
                    plain,
                    broker,
                    by=arguments.user(by),
                    reason=reason,
                    tell=tell,
                )
        self._write([{**asdict(found), "dry_run": options["dry_run"]}], options)
        if not options["dry_run"] and (found.held or found.unreadable):
            sys.exit(PARTLY)

    def _settle_effect(
        self, *, id: str, name: str, was_done: bool, by: str | None, reason: str, **options: Any
    ) -> None:
        user = arguments.user(by)
        if options["dry_run"]:
            changed = effects.unknown(id, name).exists()
        else:
            changed = effects.settle(id, name, was_done=was_done, by=user, reason=reason)
        row = {"job": id, "effect": name, "changed": changed, "dry_run": options["dry_run"]}
        self._write([row], options)
        if not changed:
            sys.exit(FAILED)

    def _schedule(
        self, *, run: str | None, by: str | None, reason: str, dry_run: bool, **options: Any
    ) -> None:
        user = arguments.user(by)
        if run is None:
            self._write([_facts(each) for each in recurring.listed()], options)
            return
        if dry_run:
            recurring.require(run)
            job = None
        else:
            job = recurring.run_now(run, by=user, reason=reason)
        self._write([{"schedule": run, "job": job, "dry_run": dry_run}], options)

    def _alerts(self, *, limit: int, **options: Any) -> None:
        rows = Alert.objects.order_by(F("closed_at").desc(nulls_first=True), "-pk").values(
            "id", "kind", "subject", "text", "opened_at", "acknowledged_at", "closed_at"
        )
        self._write([dict(row) for row in rows[:limit]], options)

    def _acknowledge(self, *, id: int, by: str | None, reason: str, **options: Any) -> None:
        changed = alerts.acknowledge(id, by=arguments.user(by), reason=reason)
        self._write([{"alert": id, "changed": changed}], options)

    def _watch(self, **options: Any) -> None:
        watcher = watching.Watcher()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, watcher.stop)
        watcher.run()

    def _doctor(self, **options: Any) -> None:
        findings = doctor.examine()
        self._write([{**asdict(one), "is_good": one.is_good} for one in findings], options)
        if not all(finding.is_good for finding in findings):
            sys.exit(FINDINGS)

    def _on_jobs(self, verb: str, ids: list[str], act: Verb, options: dict[str, Any]) -> None:
        if not ids:
            raise CommandError("Name at least one job by its id.", returncode=USAGE)
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
        with _bar() as bar:
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
            sys.exit(PARTLY if result.done else FAILED)

    def _write(self, rows: Iterable[dict[str, Any]], options: dict[str, Any]) -> None:
        write(self.stdout, list(rows), output_format=options["format"])


def _is_paused(queue: str) -> bool:
    row = Queue.objects.filter(name=queue).first()
    return row is not None and row.is_paused(now())


def _facts(recurrence: recurring.Recurrence) -> dict[str, Any]:
    last = recurrence.last_job
    return {
        "name": recurrence.name,
        "actor": recurrence.schedule.actor,
        "when": recurrence.words,
        "next_at": recurrence.next_at,
        "last_at": recurrence.last_at,
        "last_job": last.pk if last else None,
        "last_state": last.state if last else None,
        "is_late": recurrence.is_late,
        "is_paused": recurrence.is_paused,
    }


@contextmanager
def _told(words: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for work that tells how many of how many are done."""
    with _bar() as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar() -> Progress:
    # On stderr, so that stdout stays readable for machines.
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
