"""Answers a request that comes twice once more, without doing it again.

The key's row is inserted first, in the transaction of the act, and carries the answer when
that commits. Of two requests at once the second waits for the first at the unique index (on
SQLite for the database's one writer): it finds the answer, or, when the first was rolled
back, does the act itself. An act that fails leaves no row, so it may be tried again.

The header and the meanings of its errors are those of the IETF draft
draft-ietf-httpapi-idempotency-key-header.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from .clock import now
from .exceptions import QueueadminError
from .models import IdempotencyKey

if TYPE_CHECKING:
    from django.contrib.auth.models import User

#: How long an answer is kept.
KEEP = timedelta(hours=24)


class KeyReused(QueueadminError):
    """The key belongs to another request of the same user."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and the body as text."""

    status: int
    body: str
    is_repeated: bool = False


def once(key: str, *, user: "User", fingerprint: str, act: Callable[[], Answer]) -> Answer:
    """Return the answer of `act`, or the one it gave to the same key before.

    Args:
        key: chosen by the caller.
        user: keys of different users are different.
        fingerprint: a digest of the request.
        act: does it, in the transaction of this function.

    Raises:
        KeyReused: the key came with another request before.
    """
    with transaction.atomic():
        row, is_new = IdempotencyKey.objects.get_or_create(
            user=user, key=key, defaults={"fingerprint": fingerprint, "created_at": now()}
        )
        if row.fingerprint != fingerprint:
            raise KeyReused(
                f"The idempotency key {key!r:.100} was used for another request; "
                "a new request needs a new key."
            )
        if not is_new:
            return Answer(row.status, row.body, is_repeated=True)
        answer = act()
        row.status, row.body = answer.status, answer.body
        row.save(update_fields=["status", "body"])
    return answer


def prune() -> int:
    """Forget answers older than KEEP; return how many."""
    deleted, _ = IdempotencyKey.objects.filter(created_at__lt=now() - KEEP).delete()
    return deleted
