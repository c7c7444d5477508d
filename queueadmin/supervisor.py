"""Keeps the worker processes of `rundramatiq` alive, each for itself."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from dramatiq import get_broker

from .brokers.base import BrokerUnavailable, LedgerBroker
from .worker_process import EXIT_CONFIGURATION, SAME_SIGNAL_SECONDS

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0
# A process that lived this long starts its backoff anew.
_STABLE_SECONDS = 60.0


@dataclass(slots=True)
class _Slot:
    """A place for one worker process."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    backoff: float = _FIRST_BACKOFF
    restarts: int = 0


@dataclass(slots=True)
class Supervisor:
    """Starts `processes` worker processes and restarts each that ends, until told to stop.

    Args:
        arguments: command line of `queueadmin.worker_process`, without `--parent`.
        processes: how many to keep.
        shutdown_seconds: how long they may take to stop before they are killed.
    """

    arguments: Sequence[str]
    processes: int
    shutdown_seconds: float
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
            return
        pid = slot.process.pid
        slot.process = None
        if now - slot.started > _STABLE_SECONDS:
            slot.backoff = _FIRST_BACKOFF
        # Also after exit code 0: nobody told it to end.
        logger.error(
            "Worker %d ended (%s); restarting it in %.1f s.", pid, _describe(code), slot.backoff
        )
        self._report_dead(pid)
        slot.restarts += 1
        slot.start_at = now + slot.backoff
        slot.backoff = min(slot.backoff * 2, _LONGEST_BACKOFF)

    def _start(self, slot: _Slot) -> None:
        command = [
            sys.executable,
            "-m",
            "queueadmin.worker_process",
            "--parent",
            str(os.getpid()),
            *self.arguments,
        ]
        slot.process = subprocess.Popen(command)  # noqa: S603  # our own module
        slot.started = time.monotonic()

    def _report_dead(self, pid: int) -> None:
        """Let the dispatcher rescue the process's jobs now, not after the heartbeat time-out."""
        broker = get_broker()
        if isinstance(broker, LedgerBroker):
            try:
                broker.transport.declare_dead(socket.gethostname(), pid)
            except BrokerUnavailable as error:
                logger.warning("Could not report worker %d as dead: %s", pid, error)

    def _end_all(self) -> None:
        """Tell all processes to stop, wait, and kill what does not."""
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.shutdown_seconds
        for process in running:
            while process.poll() is None:
                if self._is_impatient or time.monotonic() > deadline:
                    logger.warning("Worker %d is killed; its jobs will run again.", process.pid)
                    process.kill()
                    process.wait()
                    self._report_dead(process.pid)
                    break
                time.sleep(0.05)  # paces the wait
        for slot in self._slots:
            slot.process = None
            slot.start_at = 0.0


def _describe(code: int) -> str:
    if code == EXIT_CONFIGURATION:
        return "bad configuration, see above"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
