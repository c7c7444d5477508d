"""Interrupts actors that run for longer than they may."""

import ctypes
import logging
import threading
import time
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, TimeLimitExceeded

from . import execution
from .conf import settings

logger = logging.getLogger(__name__)

_DEFAULT_MS = 600_000
# How late an interrupt may come.
_INTERVAL_SECONDS = 0.25


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
        self._watch: threading.Thread | None = None

    @property
    def actor_options(self) -> set[str]:
        """Return the options actors may set."""
        return {"time_limit"}

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start watching."""
        if self._watch is None:
            self._watch = threading.Thread(
                target=self._run, name="queueadmin-time-limits", daemon=True
            )
            self._watch.start()

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        """Arm the limit of this thread's job; behind it, by the grace, the hard one."""
        limit_ms = self.limit_ms(broker, message)
        deadline = time.monotonic() + limit_ms / 1000
        if broker.scoreboard is not None:
            broker.scoreboard.limit(deadline + settings.HARD_LIMIT_GRACE)
        with self._lock:
            self._deadlines[threading.get_ident()] = deadline

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Disarm the limit of this thread's job, and note that its actor has returned."""
        thread_id = threading.get_ident()
        with self._lock:
            if self._deadlines.pop(thread_id, None) is None:
                # Fired: if it was not delivered yet, it must not be any more.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
        if (run := execution.current()) is not None:
            run.finishing = True

    def limit_ms(self, broker: Broker, message: MessageProxy) -> float:
        """Return the limit in milliseconds: by message, actor, queue policy, then default."""
        actor = broker.actors.get(message.actor_name)
        policy = settings.policy(message.queue_name)
        return float(
            message.options.get("time_limit")
            or (actor and actor.options.get("time_limit"))
            or (policy.time_limit * 1000 if policy else self.time_limit)
        )

    def _run(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                for thread_id in [t for t, at in self._deadlines.items() if at <= now]:
                    del self._deadlines[thread_id]
                    self.logger.warning("Time limit exceeded in thread %d.", thread_id)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread_id), ctypes.py_object(TimeLimitExceeded)
                    )
            time.sleep(_INTERVAL_SECONDS)  # paces the watch
