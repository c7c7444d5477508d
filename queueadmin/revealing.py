"""Shows a person what is masked, and keeps that they saw it."""

from typing import TYPE_CHECKING

from django.db import transaction

from . import audit
from .exceptions import NotPermitted
from .models import Job
from .resolver import get_resolver

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PERMISSION = "reveal_payload"


def reveal(job_id: str, *, by: "User", reason: str = "") -> Job:
    """Return a job for its payload to be shown whole, after writing that `by` sees it.

    Args:
        job_id: the job.
        by: who looks; a program needs no permission and calls nothing.
        reason: why, in that person's words.

    Raises:
        NotPermitted: `by` lacks the permission `reveal_payload`.
        Job.DoesNotExist: there is no such job.
    """
    if not get_resolver().may(by, PERMISSION):
        raise NotPermitted(f"{by.get_username()} lacks the permission queueadmin.{PERMISSION}.")
    # The entry is committed before anything is shown.
    with transaction.atomic():
        job = Job.objects.get(pk=job_id)
        audit.record("reveal", "job", [job.pk], by=by, reason=reason)
    return job
