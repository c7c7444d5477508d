"""Ends open jobs that go on outside of the ledger, as messages of plain Dramatiq."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import F

from ..clock import now
from ..models import Job
from ..states import TIMED, JobState
from . import unique

#: Marks such a job. Until `arrived` notes that its message is there, it is not in any broker.
HANDED_BACK = "HandedBack"


class Left(NamedTuple):
    """A job that goes on elsewhere, with what its message is made of."""

    job: str
    dispatch: int
    queue: str
    message: bytes
    attempts: int
    due_at: datetime


def leave(numbers: Mapping[str, int]) -> set[str]:
    """End open jobs; return those that were open under this dispatch number.

    From here on nothing in the ledger runs them again. What of a worker's may still come is
    stale. Whoever asks for `left` hands them over, in this call of the command or the next.
    """
    with transaction.atomic():
        rows = Job.objects.select_for_update(no_key=True).among(
            sorted(numbers), *TIMED, JobState.WAITING
        )
        rows = rows.filter(cancel_requested_at=None)
        found = rows.order_by("id").values_list("id", "dispatch")
        ids = [job for job, dispatch in found if dispatch == numbers[job]]
        Job.objects.filter(id__in=ids).update(
            state=JobState.CANCELLED,
            dispatch=F("dispatch") + 1,
            finished_at=now(),
            in_broker=False,
            error_class=HANDED_BACK,
            error_message="It goes on as a message of plain Dramatiq.",
        )
        keyed = Job.objects.filter(id__in=ids).exclude(unique_key="")
        unique.release((), keyed.values_list("id", flat=True))
    return set(ids)


def left(limit: int) -> list[Left]:
    """Return jobs that were ended by `leave` and are not known to have arrived."""
    rows = Job.objects.filter(
        state=JobState.CANCELLED, error_class=HANDED_BACK, in_broker=False
    ).order_by("due_at", "pk")
    found = rows.values_list("pk", "dispatch", "queue", "message", "attempts", "due_at")[:limit]
    return [
        Left(pk, at, queue, bytes(data), tries, due) for pk, at, queue, data, tries, due in found
    ]


def arrived(job_ids: Collection[str]) -> None:
    """Note that the messages of such jobs are where they go on."""
    Job.objects.filter(id__in=job_ids, error_class=HANDED_BACK).update(in_broker=True)


def handed_back(job_ids: Collection[str]) -> set[str]:
    """Return those of the jobs that went on outside of the ledger."""
    rows = Job.objects.filter(pk__in=job_ids, error_class=HANDED_BACK, state=JobState.CANCELLED)
    return set(rows.values_list("pk", flat=True))
