"""The process that enqueues recurring jobs."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from queueadmin import scheduling, watching
from queueadmin.conf import settings
from queueadmin.exceptions import ConfigurationError


class Command(BaseCommand):
    help = (
        "Enqueue the jobs of QUEUEADMIN['SCHEDULES'] when they are due. Several may run; each "
        "occasion is enqueued once. It also watches, as `queueadmin watch` does. SIGTERM and "
        "SIGINT end it."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            scheduling.require_valid(settings.SCHEDULES)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        scheduler = scheduling.Scheduler(settings.SCHEDULES)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, scheduler.request_stop)
        self.stdout.write(f"Scheduling: {', '.join(settings.SCHEDULES) or 'nothing'}.")
        self.stdout.flush()
        watcher = watching.Watcher()
        thread = threading.Thread(target=watcher.run, name="queueadmin-watcher", daemon=True)
        thread.start()
        try:
            scheduler.run()
        finally:
            watcher.stop()
            # Sending takes longer than a supervisor waits; a message that is cut off waits.
            thread.join(2.0)
