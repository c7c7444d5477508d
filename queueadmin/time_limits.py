"""Interrupts actors that run for longer than they may, or whose job is cancelled."""

import ctypes
import logging
import threading
import time
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, TimeLimitExceeded

from . import execution
from .conf import settings
from .exceptions import Cancelled

logger = logging.getLogger(__name__)

_DEFAULT_MS = 600_000
# How late an interrupt may come.
_INTERVAL_SECONDS = 0.25
# Threads that were interrupted since they last asked.
_struck: set[int] = set()


def was_struck() -> bool:
    """Return whether this thread was interrupted since it last asked, wherever that went.

    What the run ended with does not tell it: an actor may catch the interrupt and go on.
    """
    # Asked after every job, and nearly always of an empty set.
    if not _struck or (thread_id := threading.get_ident()) not in _struck:
        return False
    _struck.discard(thread_id)
    return True


class PolicyTimeLimit(Middleware):
    """Dramatiq's TimeLimit by the queue's policy, armed last and disarmed first.

    It stands last in the list of middleware: its `before` hook is the last thing before
    the actor and its `after` hook the first thing behind it. Arming, disarming and firing
    hold one lock, and disarming clears an interrupt that was raised but not delivered
    yet, so none can strike the hooks that decide what becomes of the job.
    """

    def __init__(self, *, time_limit: float = _DEFAULT_MS) -> None:
        self.logger = logger
        #: Milliseconds for actors whose queue has no policy.
        self.time_limit = time_limit
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        # What each armed thread runs: job and dispatch.
        self._runs: dict[int, tuple[str, int]] = {}
        self._stop = threading.Event()

    @property
    def actor_options(self) -> set[str]:
        """Return the options actors may set."""
        return {"time_limit"}

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start watching."""
        # Each watch has its own: one that has not seen its end yet ends all the same.
        self._stop = threading.Event()
        threading.Thread(
            target=self._run, args=(broker, self._stop), name="queueadmin-time-limits", daemon=True
        ).start()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop watching; what was running while the worker stopped was watched to its end."""
        self._stop.set()

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        """Arm the limit of this thread's job; behind it, by the grace, the hard one."""
        limit_ms = self.limit_ms(broker, message)
        deadline = time.monotonic() + limit_ms / 1000
        if broker.scoreboard is not None:
            broker.scoreboard.limit(deadline + settings.HARD_LIMIT_GRACE)
        thread_id, run = threading.get_ident(), execution.current()
        with self._lock:
            self._runs[thread_id] = (run.job, run.dispatch) if run is not None else ("", 0)
            self._deadlines[thread_id] = deadline

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Disarm the limit of this thread's job, and note that its actor has returned."""
        self._disarm()
        if (run := execution.current()) is not None:
            run.finishing = True

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Disarm it also when the actor itself has skipped its message."""
        self._disarm()

    def _disarm(self) -> None:
        thread_id = threading.get_ident()
        with self._lock:
            is_armed = self._deadlines.pop(thread_id, None) is not None
        if not is_armed and thread_id in _struck:
            # Fired: if it was not delivered yet, it must not be any more.
            _withdraw(thread_id)

    def limit_ms(self, broker: Broker, message: MessageProxy) -> float:
        """Return the limit in milliseconds: by message, actor, queue policy, then default."""
        actor = broker.actors.get(message.actor_name)
        policy = settings.policy(message.queue_name)
        return float(
            message.options.get("time_limit")
            or (actor and actor.options.get("time_limit"))
            or (policy.time_limit * 1000 if policy else self.time_limit)
        )

    def _interrupt(self, thread_id: int, error: type[BaseException]) -> None:
        """Raise an error in an armed thread, once; the lock is held."""
        del self._deadlines[thread_id]
        _struck.add(thread_id)
        _raise_in(thread_id, error)

    def _run(self, broker: Any, stop: threading.Event) -> None:
        # The time paces the watch.
        while not stop.wait(_INTERVAL_SECONDS):
            with self._lock:
                now = time.monotonic()
                for thread_id in [t for t, at in self._deadlines.items() if at <= now]:
                    self.logger.warning("Time limit exceeded in thread %d.", thread_id)
                    self._interrupt(thread_id, TimeLimitExceeded)
                is_cancelling = broker.controls.is_cancelling
                for thread_id in [t for t in self._deadlines if is_cancelling(*self._runs[t])]:
                    self.logger.info("Stopping cancelled job %s.", self._runs[thread_id][0])
                    self._interrupt(thread_id, Cancelled)


class _Withdrawn(BaseException):
    """Strikes in the place of an interrupt that comes too late."""


def _withdraw(thread_id: int) -> None:
    """Take an interrupt back that has not struck this thread yet.

    Another one takes its place, and strikes here. Were it replaced by none at all, Python 3.11
    would look for it for ever, and a traced function (by a debugger or profiler) never return.
    """
    try:
        _raise_in(thread_id, _Withdrawn)
        for _ in range(100):
            pass  # each round is a place where it may strike
    except _Withdrawn:
        pass


def _raise_in(thread_id: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))
