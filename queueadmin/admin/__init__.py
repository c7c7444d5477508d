"""The console inside the Django admin."""

from django.contrib import admin

from ..models import (
    AuditEntry,
    DeadLetter,
    FailureGroup,
    Job,
    RecoveryRun,
    RequeueOperation,
)
from .dead_letter_admin import DeadLetterAdmin
from .failure_group_admin import FailureGroupAdmin
from .job_admin import JobAdmin
from .operation_admin import RequeueOperationAdmin
from .trail_admin import AuditEntryAdmin, RecoveryRunAdmin

__all__ = [
    "AuditEntryAdmin",
    "DeadLetterAdmin",
    "FailureGroupAdmin",
    "JobAdmin",
    "RecoveryRunAdmin",
    "RequeueOperationAdmin",
    "register",
]


def register(site: admin.AdminSite) -> None:
    """Put the whole console on an admin site; the default site has it already."""
    site.register(Job, JobAdmin)
    site.register(DeadLetter, DeadLetterAdmin)
    site.register(FailureGroup, FailureGroupAdmin)
    site.register(RequeueOperation, RequeueOperationAdmin)
    site.register(RecoveryRun, RecoveryRunAdmin)
    site.register(AuditEntry, AuditEntryAdmin)


register(admin.site)
