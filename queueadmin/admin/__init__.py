"""The console inside the Django admin: jobs, dead letters, recovery runs, audit."""

from django.contrib import admin

from ..models import AuditEntry, DeadLetter, Job, RecoveryRun
from .dead_letter_admin import DeadLetterAdmin
from .job_admin import JobAdmin
from .trail_admin import AuditEntryAdmin, RecoveryRunAdmin

__all__ = ["AuditEntryAdmin", "DeadLetterAdmin", "JobAdmin", "RecoveryRunAdmin", "register"]


def register(site: admin.AdminSite) -> None:
    """Put the whole console on an admin site; the default site has it already."""
    site.register(Job, JobAdmin)
    site.register(DeadLetter, DeadLetterAdmin)
    site.register(RecoveryRun, RecoveryRunAdmin)
    site.register(AuditEntry, AuditEntryAdmin)


register(admin.site)
