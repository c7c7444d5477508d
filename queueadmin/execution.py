"""What the current thread is running, from the fetch to the recorded outcome."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

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
    #: Set by whoever decides what follows a failure.
    retry_delay_ms: int | None = None
    cause: DeathCause | None = None
    #: Interrupted by a shutdown: goes back without counting an attempt.
    returned: bool = False
    result: str | None = None
    #: Whether its arguments, or those it carries, are declared sensitive.
    is_sensitive: bool = False
    #: Cuts sensitive values of the job out of a text.
    redact: Callable[[str], str] = str
    #: True while the after-hooks run; what they enqueue is committed with the outcome.
    finishing: bool = False
    follow_ups: "list[NewJob]" = field(default_factory=list)


_local = threading.local()


def current() -> Execution | None:
    """Return the execution of this thread, or None outside of a job."""
    return getattr(_local, "execution", None)


def enter(execution: Execution) -> None:
    """Make `execution` this thread's current one."""
    _local.execution = execution


def leave() -> None:
    """Forget this thread's execution."""
    _local.execution = None
