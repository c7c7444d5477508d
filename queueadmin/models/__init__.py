"""The tables of the ledger and of what staff do with it."""

from .attempt import Attempt
from .audit import AuditEntry
from .dead_letter import DeadLetter, Note
from .job import Job
from .lease import Lease
from .queue import Queue
from .recovery import RecoveryRun
from .schedule import ScheduleOccasion
from .unique import UniqueKey
from .worker import Worker

__all__ = [
    "Attempt",
    "AuditEntry",
    "DeadLetter",
    "Job",
    "Lease",
    "Note",
    "Queue",
    "RecoveryRun",
    "ScheduleOccasion",
    "UniqueKey",
    "Worker",
]
