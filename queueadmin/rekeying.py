"""Encrypts kept payloads with the newest key, so that an older one can be taken away."""

from dataclasses import dataclass

from django.db.models import Q

from . import audit, payloads
from .exceptions import Undecryptable
from .models import Job, Revision

# A row is read, encrypted and written in well under a millisecond.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """How many sensitive payloads were looked at, and what became of them."""

    looked_at: int
    renewed: int
    #: Those that no key opens; they are left as they are.
    undecryptable: int
    #: Renewed ones whose old form a broker may still hold until they have run.
    unfinished: int


def rekey(*, dry_run: bool = False) -> Rekeyed:
    """Encrypt every kept sensitive payload and result with the newest key.

    Also those that were stored before there was a key, where their actor is known here.
    It can be interrupted and repeated. Each row is changed only if it is still what was
    read, so it loses no race: a result stored meanwhile is found by the next run.

    Args:
        dry_run: only count.
    """
    actors = payloads.known_actors()
    declared = list(payloads.declared(actors))
    wanted = Job.objects.filter(Q(is_sealed=True) | Q(actor__in=declared))
    looked_at = renewed = undecryptable = unfinished = 0
    last = ""
    while batch := list(wanted.filter(pk__gt=last).order_by("pk")[:_BATCH]):
        last = batch[-1].pk
        looked_at += len(batch)
        for job in batch:
            try:
                is_new = _renew(job, actors, dry_run=dry_run)
            except Undecryptable:
                undecryptable += 1
                continue
            renewed += is_new
            unfinished += is_new and not job.is_finished
    for revision in Revision.objects.filter(job__in=wanted).iterator(_BATCH):
        looked_at += 1
        try:
            renewed += _renew_revision(revision, actors, dry_run=dry_run)
        except Undecryptable:
            undecryptable += 1
    result = Rekeyed(looked_at, renewed, undecryptable, unfinished)
    if renewed and not dry_run:
        audit.record("reencrypt", "payloads", [""], by=None, renewed=renewed)
    return result


def _renew(job: Job, actors: payloads.Actors, *, dry_run: bool) -> bool:
    """Encrypt one job's message and result anew; return whether that was needed."""
    kept = bytes(job.message)
    message = payloads.renewed(kept, actors)
    result = payloads.renewed_result(job.result) if job.result is not None else None
    if (message, result) == (kept, job.result):
        return False
    if dry_run:
        return True
    is_same = Q(result__isnull=True) if job.result is None else Q(result=job.result)
    unchanged = Job.objects.filter(is_same, pk=job.pk, message=kept)
    return bool(unchanged.update(message=message, result=result, is_sealed=True))


def _renew_revision(revision: Revision, actors: payloads.Actors, *, dry_run: bool) -> bool:
    """Encrypt what a job was before an edit; nobody else writes it."""
    kept = bytes(revision.message)
    message = payloads.renewed(kept, actors)
    if message == kept:
        return False
    if not dry_run:
        Revision.objects.filter(pk=revision.pk).update(message=message)
    return True
