"""Erases personal data from the payloads of jobs that are over; their rows stay.

What is erased: the sensitive arguments (or all), the result, the texts of errors, which may
repeat them, and what requeue operations changed an argument from and to. A job that lost its
arguments cannot be requeued.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Model, TextChoices
from django.utils.translation import gettext_lazy as _

from . import audit, payloads
from .clock import now
from .conf import settings
from .deadletters import BulkResult
from .models import (
    Attempt,
    DeadLetter,
    Effect,
    FailureGroup,
    Job,
    OperationItem,
    RequeueOperation,
    Revision,
)
from .payloads import ERASED
from .states import FINISHED, DeadLetterStatus, ItemState

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

PERMISSION = "erase_payload"
BATCH = 200  # one transaction each, a payload rewritten per row


class Skip(TextChoices):
    """Why a job was left as it was."""

    UNFINISHED = "not finished", _("not finished: cancel it first, or wait")
    # Without its values an operation could not go on with its other jobs.
    CHANGING = (
        "being changed by a requeue operation",
        _("being changed by a requeue operation: abort it first, or wait"),
    )
    ERASED = "already erased", _("already erased")
    GONE = "no longer there", _("no longer there")
    OVER_LIMIT = "over the limit of one action", _("over the limit of one action")


def erase(
    job_ids: Iterable[str], *, by: "User | None", reason: str = "", everything: bool = False
) -> BulkResult:
    """Replace the sensitive data of finished jobs by a marker, for ever.

    Args:
        job_ids: the jobs; at most BULK_LIMIT.
        by: who asks; None for a program.
        reason: why, in that person's words.
        everything: erase all arguments, not only those that are declared sensitive.

    Raises:
        NotPermitted: `by` lacks the permission `erase_payload`.
    """
    audit.require(by, PERMISSION)
    given = sorted(set(job_ids))
    wanted = given[: settings.BULK_LIMIT]
    skipped = Counter({Skip.OVER_LIMIT.value: len(given) - len(wanted)})
    done = 0
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        with transaction.atomic():
            erased = _erase(batch, skipped, everything=everything)
            audit.record("erase", "job", erased, by=by, reason=reason, everything=everything)
        done += len(erased)
    return BulkResult(len(given), done, {why: count for why, count in skipped.items() if count})


def _erase(batch: list[str], skipped: "Counter[str]", *, everything: bool) -> list[str]:
    """Erase a batch; return the ids of the jobs that were.

    Dead letters are locked before jobs, each in the order of their keys, as a requeue does it.
    Of a requeue and an erasure the one that locks first wins: a job that was requeued is not
    finished any more, and one that was erased is not moved. So it is with the beginning of an
    operation that changes an argument: it locks its dead letters too.

    Requeued dead letters are not locked: their jobs are with a worker, whose recorder locks
    the job first and the dead letter after it, so each would wait for the other. Once such a
    job is found finished under its lock, the recorder is done with both.
    """
    list(
        DeadLetter.objects.select_for_update()
        .filter(job_id__in=batch)
        .exclude(status=DeadLetterStatus.REQUEUED)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    jobs = list(Job.objects.select_for_update().filter(pk__in=batch).order_by("pk"))
    skipped[Skip.GONE.value] += len(batch) - len(jobs)
    at = now()
    changing = set(
        _changes(batch)
        .exclude(operation__status__in=RequeueOperation.ENDED)
        .values_list("dead_letter__job_id", flat=True)
    )
    erased = []
    for job in jobs:
        if job.erased_at is not None:
            skipped[Skip.ERASED.value] += 1
            continue
        if job.state not in FINISHED:
            skipped[Skip.UNFINISHED.value] += 1
            continue
        if job.pk in changing:
            skipped[Skip.CHANGING.value] += 1
            continue
        message = payloads.erased(bytes(job.message), everything=everything)
        Job.objects.filter(pk=job.pk, state__in=FINISHED, erased_at=None).update(
            message=message,
            is_sealed=payloads.is_sealed(message),
            result=None,
            error_message=ERASED if job.error_message else "",
            progress_text="",
            erased_at=at,
        )
        erased.append(job.pk)
    Revision.objects.filter(job_id__in=erased).delete()
    Effect.objects.filter(job_id__in=erased).update(result=None)
    RequeueOperation.objects.filter(
        pk__in=set(_changes(erased).values_list("operation", flat=True))
    ).update(argument_before=ERASED, argument_after=ERASED)
    _erase_texts(
        erased,
        list(DeadLetter.objects.filter(job_id__in=erased).defer("traceback", "raw").order_by("pk")),
    )
    return erased


def _changes(job_ids: list[str]) -> "QuerySet[OperationItem]":
    """Return where requeue operations change an argument of these jobs, or have done so."""
    return (
        OperationItem.objects.filter(dead_letter__job_id__in=job_ids)
        .exclude(operation__argument="")
        .exclude(state=ItemState.SKIPPED)
    )


def _erase_texts(job_ids: list[str], letters: list[DeadLetter]) -> None:
    """Erase what failures of these jobs said, wherever it was copied to."""
    DeadLetter.objects.filter(pk__in=[letter.pk for letter in letters]).update(raw=None)
    rows: list[tuple[type[Model], dict[str, object]]] = [
        (Attempt, {"job_id__in": job_ids}),
        (DeadLetter, {"pk__in": [letter.pk for letter in letters]}),
    ]
    for model, which in rows:
        for name in ("error_message", "traceback"):
            texts = model._default_manager.filter(**which).exclude(**{name: ""})
            texts.update(**{name: ERASED})
    for letter in letters:
        if letter.error_message:
            # The group's example may be this very failure.
            examples = (letter.error_message, letter.error_message[:2000])
            FailureGroup.objects.filter(
                fingerprint=letter.fingerprint, error_message__in=examples
            ).update(error_message=ERASED)
