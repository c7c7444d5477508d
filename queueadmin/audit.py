"""Writes the audit trail; every use case calls it in the transaction of its act."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .clock import now
from .exceptions import NotPermitted
from .models import AuditEntry
from .resolver import get_resolver

if TYPE_CHECKING:
    from django.contrib.auth.models import User

#: Name under which acts of programs are kept.
SYSTEM = "system"


def require(by: "User | None", verb: str) -> None:
    """Let a program (None) and whoever has the permission of the verb pass.

    Raises:
        NotPermitted: `by` lacks the permission.
    """
    if by is not None and not get_resolver().may(by, verb):
        raise NotPermitted(f"{by.get_username()} lacks the permission queueadmin.{verb}.")


def record(
    verb: str,
    target_type: str,
    target_ids: Iterable[object],
    *,
    by: "User | None",
    reason: str = "",
    **detail: Any,
) -> None:
    """Add one entry per target.

    Args:
        verb: what was done, a verb of the glossary such as "requeue".
        target_type: "job", "dead letter" or "queue".
        target_ids: ids of the records it was done to.
        by: who did it; None for a program.
        reason: why, in that person's words.
        **detail: facts worth keeping, JSON-ready.
    """
    name = by.get_username() if by is not None else SYSTEM
    at = now()
    AuditEntry.objects.bulk_create(
        [
            AuditEntry(
                at=at,
                user=by,
                user_name=name,
                verb=verb,
                target_type=target_type,
                target_id=str(target_id),
                reason=reason,
                detail=detail,
            )
            for target_id in target_ids
        ],
        batch_size=500,  # keeps SQLite under its bound of variables
    )
