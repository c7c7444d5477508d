"""Unique keys: of the jobs of an actor with the same key, one holds it.

Claimed in the transaction that adds the job and released in the one that ends it, so a
rollback takes back either. Rivals meet at the table's unique constraint: who inserts second
waits until the first has committed or rolled back, and no error breaks its transaction.
A key that is held is only read, never locked, so that a caller's long transaction does not
keep the recorder from releasing it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import Q

from ..clock import now
from ..models import UniqueKey
from .sql import timestamp

# 500 rows of 4 columns stay far below SQLite's bound of parameters.
_BATCH = 500


class Claim(NamedTuple):
    """A job that wants a key; the order of the fields is the order of locking."""

    actor: str
    key: str
    job: str
    until: datetime | None


def claim(claims: Iterable[Claim]) -> dict[str, str]:
    """Claim the keys; return the jobs that came too late, each with the job that holds its key.

    Call it in a transaction. Of two claims to one key the first one wins. Keys are sorted,
    so that two transactions with the same keys wait for each other instead of locking each
    other out.
    """
    # Stable: claims to the same key stay in their order.
    wanted = sorted(claims, key=lambda claim: claim[:2])
    held: dict[str, str] = {}
    for start in range(0, len(wanted), _BATCH):
        pending = wanted[start : start + _BATCH]
        _drop_expired(pending)
        while pending:
            claimed = _insert(pending)
            holders = _holders([claim for claim in pending if claim.job not in claimed])
            late = {
                claim.job: holder
                for claim in pending
                if (holder := holders.get(claim[:2])) and holder != claim.job
            }
            held |= late
            # Again where the holder ended between the two statements.
            pending = [
                claim for claim in pending if claim.job not in claimed and claim[:2] not in holders
            ]
    return held


def _drop_expired(claims: Sequence[Claim]) -> None:
    """Delete the keys among these whose period is over, in the common order."""
    expired = (
        UniqueKey.objects.select_for_update()
        .filter(_among(claims), expires_at__lte=now())
        .order_by("actor", "key")
        .values_list("pk", flat=True)
    )
    if found := list(expired):
        UniqueKey.objects.filter(pk__in=found).delete()


def _insert(claims: Sequence[Claim]) -> set[str]:
    """Add the keys that nobody holds; return the jobs that hold theirs now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO queueadmin_uniquekey (actor, key, job_id, expires_at) "  # noqa: S608
            f"VALUES {', '.join(['(%s, %s, %s, %s)'] * len(claims))} "
            "ON CONFLICT (actor, key) DO NOTHING RETURNING job_id",
            [
                parameter
                for claim in claims
                for parameter in (
                    *claim[:3],
                    timestamp(claim.until) if claim.until is not None else None,
                )
            ],
        )
        return {row[0] for row in cursor.fetchall()}


def _holders(claims: Sequence[Claim]) -> dict[tuple[str, str], str]:
    if not claims:
        return {}
    rows = UniqueKey.objects.filter(_among(claims))
    return {(actor, key): job for actor, key, job in rows.values_list("actor", "key", "job_id")}


def _among(claims: Sequence[Claim]) -> Q:
    keys_of: dict[str, list[str]] = {}
    for claim in claims:
        keys_of.setdefault(claim.actor, []).append(claim.key)
    condition = Q()
    for actor, keys in keys_of.items():
        condition |= Q(actor=actor, key__in=keys)
    return condition


def release(ended: Iterable[str], failed: Iterable[str] = ()) -> None:
    """Let go of the keys of jobs that ended; call it in the transaction that ends them.

    Args:
        ended: jobs that completed; a key held for a period stays until that is over.
        failed: jobs that died or were cancelled; they hold nothing any more.
    """
    if completed := sorted(ended):
        UniqueKey.objects.filter(job_id__in=completed, expires_at=None).delete()
    if others := sorted(failed):
        UniqueKey.objects.filter(job_id__in=others).delete()


def prune() -> int:
    """Delete keys whose period is over and return how many; none of them is held."""
    deleted, _ = UniqueKey.objects.filter(expires_at__lte=now()).delete()
    return deleted
