"""Run Dramatiq workers, each process restarted by itself."""

import os
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django_dramatiq.management.commands.rundramatiq import Command as DjangoDramatiqCommand

from queueadmin.supervisor import Supervisor

_WATCHED = ["**.py"]


class Command(DjangoDramatiqCommand):  # type: ignore[misc]  # it has no types
    """django-dramatiq's command and options, on queueadmin's own supervisor."""

    help = "Run Dramatiq workers that record in the ledger; a process that dies is restarted alone."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--recycle-jobs",
            type=int,
            default=0,
            help="Replace a process when it has done so many jobs (0: never).",
        )
        parser.add_argument(
            "--recycle-mb",
            type=int,
            default=0,
            help="Replace a process when it has used so many megabytes of memory (0: never).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or SIGINT."""
        if options["use_gevent"]:
            raise CommandError("gevent is not supported: outcomes are recorded by real threads.")
        if options["forks"]:
            raise CommandError("--fork-function is not supported; run it as a process of its own.")
        if options["processes"] < 1 or options["threads"] < 1:
            raise CommandError("--processes and --threads must be 1 or more.")
        modules = [
            module
            for module in self.discover_tasks_modules()
            if module not in ("django_dramatiq.setup", "django_dramatiq.tasks")
        ]
        arguments = [
            "--threads",
            str(options["threads"]),
            "--shutdown-timeout-ms",
            str(options["worker_shutdown_timeout"]),
            "--recycle-jobs",
            str(options["recycle_jobs"]),
            "--recycle-mb",
            str(options["recycle_mb"]),
            "--path",
            *options["path"],
            *(["--queues", *options["queues"]] if options["queues"] else []),
            "--",
            *modules,
        ]
        if options["log_file"]:
            self._redirect(options["log_file"])
        if options["pid_file"]:
            self._write_pid(options["pid_file"])
        watcher = self._watch(options["watch_dir"], polling=options["use_polling_watcher"])
        supervisor = Supervisor(
            arguments,
            options["processes"],
            options["threads"],
            shutdown_seconds=options["worker_shutdown_timeout"] / 1000 + 10,
        )
        self.stdout.write(
            f"{options['processes']} processes x {options['threads']} threads, "
            f"actors of {', '.join(modules) or 'no module'}"
        )
        try:
            sys.exit(supervisor.run())
        finally:
            if watcher is not None:
                watcher.stop()
            if options["pid_file"]:
                os.unlink(options["pid_file"])

    def _redirect(self, path: str) -> None:
        try:
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise CommandError(f"Cannot write the log file: {error}") from error
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _write_pid(self, path: str) -> None:
        try:
            with open(path, "x") as file:
                file.write(str(os.getpid()))
        except FileExistsError as error:
            raise CommandError(
                f"The PID file {path} exists. If no worker runs, remove it."
            ) from error
        except OSError as error:
            raise CommandError(f"Cannot write the PID file: {error}") from error

    def _watch(self, directory: str | None, *, polling: bool) -> Any:
        """Restart the workers when source files change, by Dramatiq's own watcher."""
        if not directory:
            return None
        try:
            from dramatiq.watcher import setup_file_watcher
        except ImportError as error:
            raise CommandError("--reload needs the package watchdog, version 6.") from error
        return setup_file_watcher(directory, polling, _WATCHED, None)
