"""The tables of the ledger and of what staff do with it."""

from .alert import Alert, AlertMessage, Digest
from .attempt import Attempt
from .audit import AuditEntry
from .dead_letter import DeadLetter, Note
from .effect import Effect
from .failure_group import FailureGroup, GroupNote
from .holding import Grant, Heartbeat, Holding
from .idempotency import IdempotencyKey
from .job import Job
from .lease import Lease
from .operation import OperationItem, RequeueOperation
from .queue import Overview, Queue
from .recovery import RecoveryRun
from .revision import Revision
from .rule import AssignmentRule
from .schedule import ScheduleControl, ScheduleOccasion
from .statistic import HourStatistic, MinuteStatistic, StatisticTotal
from .unique import UniqueKey
from .worker import RetiredCounters, Worker

__all__ = [
    "Alert",
    "AlertMessage",
    "AssignmentRule",
    "Attempt",
    "AuditEntry",
    "DeadLetter",
    "Digest",
    "Effect",
    "FailureGroup",
    "Grant",
    "GroupNote",
    "Heartbeat",
    "Holding",
    "HourStatistic",
    "IdempotencyKey",
    "Job",
    "Lease",
    "MinuteStatistic",
    "Note",
    "OperationItem",
    "Overview",
    "Queue",
    "RecoveryRun",
    "RequeueOperation",
    "RetiredCounters",
    "Revision",
    "ScheduleControl",
    "ScheduleOccasion",
    "StatisticTotal",
    "UniqueKey",
    "Worker",
]
