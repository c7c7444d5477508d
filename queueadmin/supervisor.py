"""Keeps the worker processes of `rundramatiq` alive, each for itself."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from django.db import Error as DatabaseProblem
from django.db import connection
from dramatiq import get_broker

from . import crashes, leases
from .brokers.base import LedgerBroker
from .brokers.transport import BrokerUnavailable
from .hard_limits import record_overrun
from .scoreboard import Running, Scoreboard
from .worker_process import EXIT_BROKEN, EXIT_CONFIGURATION, EXIT_RECYCLED, SAME_SIGNAL_SECONDS

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0
# A process that lived this long starts its backoff anew.
_STABLE_SECONDS = 60.0
# How long the other jobs of a process get to end when one of them has to be stopped.
_LAST_SECONDS = 30.0
# A process that runs no job and shows no sign of life for so long is stuck.
_STUCK_SECONDS = 30.0
# A process is silent when it has missed more than one of its own heartbeats.
_SILENT_SECONDS = 2.5
_BEAT_SECONDS = 1.0


@dataclass(slots=True)
class _Slot:
    """A place for one worker process."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    backoff: float = _FIRST_BACKOFF
    restarts: int = 0
    scoreboard: Scoreboard | None = None
    #: When it was told to stop because of a job that nothing else stops.
    ending_since: float | None = None
    beat_at: float = 0.0
    #: It was killed from here, and not by what it ran.
    was_killed: bool = False


@dataclass(slots=True)
class Supervisor:
    """Starts `processes` worker processes and restarts each that ends, until told to stop.

    Args:
        arguments: command line of `queueadmin.worker_process`, without `--parent`.
        processes: how many to keep.
        threads: how many each has.
        shutdown_seconds: how long they may take to stop before they are killed.
    """

    arguments: Sequence[str]
    processes: int
    threads: int
    shutdown_seconds: float
    _folder: Path = field(default_factory=Path)
    _slots: list[_Slot] = field(default_factory=list)
    _is_stopping: bool = False
    _must_reload: bool = False
    _is_impatient: bool = False
    _stopped_at: float = 0.0

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; return the exit code.

        SIGHUP restarts the processes.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._slots = [_Slot() for _ in range(self.processes)]
        with TemporaryDirectory(prefix="queueadmin-") as folder:
            self._folder = Path(folder)
            while not self._is_stopping:
                for slot in self._slots:
                    self._tend(slot)
                if self._must_reload:
                    self._must_reload = False
                    self._end_all()
                time.sleep(_TICK_SECONDS)  # paces the watch
            self._end_all()
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._must_reload = True
            return
        now = time.monotonic()
        if not self._is_stopping:
            self._is_stopping, self._stopped_at = True, now
        elif now - self._stopped_at > SAME_SIGNAL_SECONDS:
            self._is_impatient = True

    def _tend(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is None:
            if now >= slot.start_at:
                self._start(slot)
            return
        code = slot.process.poll()
        if code is None:
            self._watch(slot, slot.process, now)
            return
        pid = slot.process.pid
        slot.process = None
        slot.ending_since = None
        if code == EXIT_RECYCLED:
            logger.info("Worker %d has done its share; starting another.", pid)
            slot.start_at = now
            return
        if now - slot.started > _STABLE_SECONDS:
            slot.backoff = _FIRST_BACKOFF
        # Also after exit code 0: nobody told it to end.
        logger.error(
            "Worker %d ended (%s); restarting it in %.1f s.", pid, _describe(code), slot.backoff
        )
        self._report_crash(slot, pid)
        self._report_dead(slot)
        slot.restarts += 1
        slot.start_at = now + slot.backoff
        slot.backoff = min(slot.backoff * 2, _LONGEST_BACKOFF)

    def _watch(self, slot: _Slot, process: "subprocess.Popen[bytes]", now: float) -> None:
        """End a process that is stuck, and speak for one that cannot speak for itself."""
        if slot.scoreboard is None:
            return
        running = slot.scoreboard.running()
        overdue = [run for run in running if now > run.hard_deadline]
        signed_at, worker_id = slot.scoreboard.last_sign()
        silence = now - signed_at if signed_at else 0.0
        if overdue:
            if slot.ending_since is None:
                slot.ending_since = now
                logger.error(
                    "Worker %d ends: job %s still runs after its time limit and grace.",
                    process.pid,
                    overdue[0].job,
                )
                # What else it runs may end, if the process still obeys.
                process.terminate()
            elif len(overdue) == len(running) or now - slot.ending_since > _LAST_SECONDS:
                slot.was_killed = True
                self._end_overdue(process, overdue)
        elif not running and silence > _STUCK_SECONDS and _state(process.pid) not in "TtZX":
            logger.error("Worker %d shows no sign of life; it is killed.", process.pid)
            process.kill()
        elif silence > _SILENT_SECONDS and now >= slot.beat_at:
            slot.beat_at = now + _BEAT_SECONDS
            self._beat_for(process.pid, worker_id)

    def _end_overdue(self, process: "subprocess.Popen[bytes]", overdue: list[Running]) -> None:
        """Kill the process, and record its overdue jobs before anybody rescues them."""
        process.kill()
        process.wait()
        broker = get_broker()
        if not isinstance(broker, LedgerBroker):
            return
        worker = f"{socket.gethostname()}:{process.pid}"
        for run in overdue:
            seconds = time.monotonic() - run.started
            try:
                _report(partial(record_overrun, broker, run, seconds=seconds, worker=worker))
            except DatabaseProblem as error:
                # It stays in the dead process's hands, is rescued and tried again.
                logger.error("Could not record that job %s ran too long: %s", run.job, error)

    def _beat_for(self, pid: int, worker_id: str) -> None:
        """Send the heartbeat of a process whose Python code does not get a turn.

        An extension may hold the interpreter's lock for long. The process is not dead:
        its jobs must not be started elsewhere too, and their hard limit bounds it. A
        process that was stopped by a signal is not spoken for.
        """
        broker = get_broker()
        if isinstance(broker, LedgerBroker) and _state(pid) not in "TtZX":
            with contextlib.suppress(BrokerUnavailable):
                broker.transport.heartbeat(worker_id)

    def _start(self, slot: _Slot) -> None:
        path = self._folder / f"{self._slots.index(slot)}.scoreboard"
        if slot.scoreboard is not None:
            slot.scoreboard.close()
            # A new file: an old process that is not quite gone keeps its own.
            path.unlink(missing_ok=True)
        slot.scoreboard = Scoreboard.create(path, self.threads)
        command = [
            sys.executable,
            "-m",
            "queueadmin.worker_process",
            "--parent",
            str(os.getpid()),
            "--scoreboard",
            str(path),
            *self.arguments,
        ]
        # Each of a worker's many threads would get an arena of glibc's, which gives little back.
        environment = {"MALLOC_ARENA_MAX": "2", **os.environ}
        slot.process = subprocess.Popen(command, env=environment)  # noqa: S603  # our own module
        slot.started = time.monotonic()

    def _report_crash(self, slot: _Slot, pid: int) -> None:
        """Count the crash for the jobs that ran, unless it was we who killed the process."""
        broker = get_broker()
        if slot.was_killed or slot.scoreboard is None or not isinstance(broker, LedgerBroker):
            slot.was_killed = False
            return
        worker = f"{socket.gethostname()}:{pid}"
        try:
            _report(partial(crashes.record, broker, slot.scoreboard.running(), worker=worker))
        except DatabaseProblem as error:
            # They are rescued from the dead process's hands, uncounted.
            logger.warning("Could not count the crash of worker %d: %s", pid, error)

    def _report_dead(self, slot: _Slot) -> None:
        """Let the dispatcher rescue the process's jobs now, not after the heartbeat time-out.

        By the id that the process has signed with: in containers, another host may have the
        same name and a living process with the same number.
        """
        broker = get_broker()
        worker_id = slot.scoreboard.last_sign()[1] if slot.scoreboard is not None else ""
        if not worker_id or not isinstance(broker, LedgerBroker):
            return
        try:
            # Or nobody leads until its lease has run out.
            _report(partial(leases.release, "dispatcher", worker_id))
        except DatabaseProblem as error:
            logger.warning("Could not take the lease of worker %s: %s", worker_id, error)
        try:
            # To RabbitMQ's transport, too, this is a row.
            _report(partial(broker.transport.declare_dead, worker_id))
        except BrokerUnavailable as error:
            logger.warning("Could not report worker %s as dead: %s", worker_id, error)

    def _end_all(self) -> None:
        """Tell all processes to stop, wait, and kill what does not."""
        running = [(slot, slot.process) for slot in self._slots if slot.process is not None]
        for _, process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.shutdown_seconds
        for slot, process in running:
            while process.poll() is None:
                if self._is_impatient or time.monotonic() > deadline:
                    logger.warning("Worker %d is killed; its jobs will run again.", process.pid)
                    process.kill()
                    process.wait()
                    self._report_dead(slot)
                    break
                time.sleep(0.05)  # paces the wait
        for slot in self._slots:
            slot.process = slot.ending_since = None
            slot.start_at = 0.0


def _report(report: Callable[[], object]) -> None:
    """Tell the ledger something, and once more on a new connection if this one breaks.

    Hours may pass between two reports, in which a restart, a failover or an idle time-out ends
    any connection without a word; so none is kept, and one that is there is not trusted. Told
    again, what was committed and whose answer was lost changes nothing in the ledger: a report
    counts for one dispatch, or one holder, only. Whom `on_retry_exhausted` names may hear of it
    twice.

    Raises:
        DatabaseProblem: the second try failed as well.
    """
    try:
        report()
    except DatabaseProblem as error:
        logger.info("A report is made again, on a new connection: %s", error)
        connection.close()
        report()
    finally:
        connection.close()


def _state(pid: int) -> str:
    """Return the letter of a process's state as in proc(5); "T" where nobody can tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "T"
    return status.rpartition(")")[2].split()[0]


def _describe(code: int) -> str:
    if code == EXIT_BROKEN:
        return "a thread of its own had died"
    if code == EXIT_CONFIGURATION:
        return "bad configuration, see above"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
