"""Looks for trouble from outside the workers, who cannot tell that they are all dead.

`runscheduler` has a watcher, and `queueadmin watch` is nothing else. While workers live,
their dispatcher looks and a job sends; the watcher only waits for its turn. It looks when
nobody else does, sends what no job has sent in time, and when the database is away it tells
of that directly, from memory: there is nowhere to write it. Several watchers may run; each
tells of a database that is away, since they cannot ask one another.
"""

import logging
import socket
import threading
from dataclasses import asdict
from datetime import datetime
from uuid import uuid4

from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.utils.translation import gettext as _

from . import alert_messages, alerts, clock
from .alert_messages import Event
from .conditions import Reading
from .conf import settings
from .states import AlertKind

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0


class Watcher:
    """Looks every few seconds until it is stopped."""

    def __init__(self) -> None:
        self._lookout = alerts.Lookout()
        self._stopping = threading.Event()
        self._away_since: datetime | None = None
        self._error = ""
        #: Who was told that the database is away.
        self._told: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._stopping.is_set():
            try:
                self.step()
            except Exception:
                # The one who watches must go on, whatever is wrong.
                logger.exception("The watcher failed, and looks again.")
            self._stopping.wait(LOOK_SECONDS)
        connection.close()

    def stop(self, signum: int = 0, frame: object = None) -> None:
        """End `run`; fit to be a signal handler."""
        self._stopping.set()

    def step(self) -> None:
        """Look once, and send what is overdue."""
        try:
            close_old_connections()
            if self._told:
                self._record_outage()
            self._lookout.look()
            self._away_since = None
            self._told.clear()
            alert_messages.send_overdue()
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            self._without_database(error)

    def _without_database(self, error: Exception) -> None:
        at = clock.now()
        self._away_since = self._away_since or at
        self._error = str(error)
        logger.warning("The watcher waits for the database: %s", error)
        if (at - self._away_since).total_seconds() < settings.ALERT_OUTAGE_SECONDS:
            return
        event = Event(
            event="opened",
            alert=None,
            kind=AlertKind.DATABASE.value,
            subject="",
            queue="",
            text=self._text(),
            opened_at=self._away_since.isoformat(),
            closed_at=None,
        )
        for channel, target in alert_messages.targets():
            if (channel, target) in self._told:
                continue
            try:
                alert_messages.deliver(channel, target, [asdict(event)], number=str(uuid4()))
            except Exception as failure:  # of whatever backend; tried again at the next look
                logger.warning("Could not tell by %s: %s", channel, failure)
            else:
                self._told.add((channel, target))

    def _record_outage(self) -> None:
        """Write down what was told while there was nowhere to; the next look closes it.

        The first to write it opens the alert, so its end is told once.
        """
        reading = Reading(kind=AlertKind.DATABASE, text=self._text())
        alerts.record(reading, opened_at=self._away_since)

    def _text(self) -> str:
        return _("The database does not answer, as seen from %(host)s: %(error)s") % {
            "host": socket.gethostname(),
            "error": self._error,
        }
