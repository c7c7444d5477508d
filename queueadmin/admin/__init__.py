"""The console inside the Django admin."""

from django.contrib import admin

from ..models import (
    Alert,
    AssignmentRule,
    Attempt,
    AuditEntry,
    DeadLetter,
    FailureGroup,
    Job,
    Overview,
    Queue,
    RecoveryRun,
    RequeueOperation,
    ScheduleControl,
    Worker,
)
from .alert_admin import AlertAdmin
from .attempt_admin import AttemptAdmin
from .dead_letter_admin import DeadLetterAdmin
from .failure_group_admin import FailureGroupAdmin
from .job_admin import JobAdmin
from .operation_admin import RequeueOperationAdmin
from .overview_admin import OverviewAdmin
from .queue_admin import QueueAdmin
from .rule_admin import AssignmentRuleAdmin
from .schedule_admin import ScheduleAdmin
from .trail_admin import AuditEntryAdmin, RecoveryRunAdmin
from .worker_admin import WorkerAdmin

__all__ = [
    "AlertAdmin",
    "AssignmentRuleAdmin",
    "AttemptAdmin",
    "AuditEntryAdmin",
    "DeadLetterAdmin",
    "FailureGroupAdmin",
    "JobAdmin",
    "OverviewAdmin",
    "QueueAdmin",
    "RecoveryRunAdmin",
    "RequeueOperationAdmin",
    "ScheduleAdmin",
    "WorkerAdmin",
    "register",
]


def register(site: admin.AdminSite) -> None:
    """Put the whole console on an admin site; the default site has it already."""
    site.register(Overview, OverviewAdmin)
    site.register(Alert, AlertAdmin)
    site.register(Queue, QueueAdmin)
    site.register(Worker, WorkerAdmin)
    site.register(ScheduleControl, ScheduleAdmin)
    site.register(Job, JobAdmin)
    site.register(Attempt, AttemptAdmin)
    site.register(DeadLetter, DeadLetterAdmin)
    site.register(FailureGroup, FailureGroupAdmin)
    site.register(AssignmentRule, AssignmentRuleAdmin)
    site.register(RequeueOperation, RequeueOperationAdmin)
    site.register(RecoveryRun, RecoveryRunAdmin)
    site.register(AuditEntry, AuditEntryAdmin)


register(admin.site)
