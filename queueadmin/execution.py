"""What the current thread is running, from the fetch to the recorded outcome."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

from . import tracebacks
from .states import DeathCause

if TYPE_CHECKING:
    # Only types: the broker, and so this module, is imported before the app registry is ready.
    from .ledger import NewJob


@dataclass(slots=True, eq=False)
class Execution:
    """One run of a job in this process."""

    job: str
    dispatch: int
    attempt: int
    queue: str
    actor: str
    started_at: datetime
    started: float  # time.perf_counter() at the start
    #: The broker's id of the message.
    parcel_id: str = ""
    #: Set by whoever decides what follows a failure.
    retry_delay_ms: int | None = None
    cause: DeathCause | None = None
    #: True until it is certain that it runs; until then it may claim its job.
    is_starting: bool = False
    #: Interrupted by a shutdown: goes back without counting an attempt.
    returned: bool = False
    #: Not started, or stopped, because somebody cancelled it.
    cancelled: bool = False
    result: str | None = None
    #: Whether its arguments, or those it carries, are declared sensitive.
    is_sensitive: bool = False
    #: Cuts sensitive values of the job out of a text.
    redact: Callable[[str], str] = str
    #: How far it says it has come: done, total, text. Replaced as a whole.
    progress: tuple[int, int | None, str] | None = None
    #: True while the after-hooks run; what they enqueue is committed with the outcome.
    finishing: bool = False
    follow_ups: "list[NewJob]" = field(default_factory=list)
    _trace: tuple[BaseException, TracebackType | None, str] | None = None

    def trace(self, exception: BaseException) -> str:
        """Return the exception with its stack as text, without sensitive values.

        Made once for the log, the message and the ledger. Anew when it has been raised again
        meanwhile, by which it has come to know more frames.
        """
        stack = exception.__traceback__
        known = self._trace
        if known is None or known[0] is not exception or known[1] is not stack:
            text = self.redact(tracebacks.as_text(exception))
            known = self._trace = exception, stack, text
        return known[2]


_local = threading.local()
_TEXT_LIMIT = 200


def current() -> Execution | None:
    """Return the execution of this thread, or None outside of a job."""
    return getattr(_local, "execution", None)


def enter(execution: Execution) -> None:
    """Make `execution` this thread's current one."""
    _local.execution = execution


def leave() -> None:
    """Forget this thread's execution."""
    _local.execution = None


def progress(done: int, total: int | None = None, text: str = "") -> None:
    """Say how far the running job has come; outside of a job it does nothing.

    It costs no more than an assignment: the worker shows the latest values in the ledger
    once a second.

    Args:
        done: how much is done, in whatever unit.
        total: how much there is in all; None when that is not known.
        text: what is being done, for people; cut after 200 characters.

    Raises:
        ValueError: a number is negative or larger than a column holds.
    """
    for value in (done, total):
        if value is not None and not 0 <= value < 2**63:
            raise ValueError(f"progress is counted from 0 to 2**63, not {value!r}.")
    if (run := current()) is not None:
        run.progress = (int(done), None if total is None else int(total), text[:_TEXT_LIMIT])
