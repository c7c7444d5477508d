"""Pushes jobs to the broker once the transaction that made them is committed."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from dramatiq import get_broker

from . import ledger
from .models import Job

if TYPE_CHECKING:
    from .brokers.base import LedgerBroker

logger = logging.getLogger(__name__)


class Outbox:
    """The parcels of one transaction that live or die together."""

    def __init__(self, broker: "LedgerBroker", savepoints: tuple[str, ...], hooks: object) -> None:
        self.broker = broker
        self.savepoints = savepoints
        self.hooks = hooks
        self.parcels: list[ledger.Parcel] = []

    def flush(self) -> None:
        """Push them, after the commit."""
        self.broker.push(self.parcels, wait=False)


def add(broker: "LedgerBroker", parcels: Sequence[ledger.Parcel]) -> None:
    """Push the parcels in one pipeline after commit, or at once when no transaction is open.

    Parcels added under the same savepoints of the same transaction share one outbox, and
    with it their fate: Django drops its commit hook when a savepoint among them is rolled
    back. The list of hooks is replaced by every commit and rollback, so an outbox that
    was begun under another list is over.
    """
    # The connection itself: Django's `connection` looks for it at every attribute.
    own = connections[DEFAULT_DB_ALIAS]
    if not own.in_atomic_block:
        broker.push(parcels, wait=False)
        return
    savepoints = tuple(str(sid) for sid in own.savepoint_ids)
    outbox: Outbox | None = getattr(own, "_queueadmin_outbox", None)
    if (
        outbox is None
        or outbox.broker is not broker
        or outbox.savepoints != savepoints
        or outbox.hooks is not own.run_on_commit
    ):
        outbox = Outbox(broker, savepoints, own.run_on_commit)
        own._queueadmin_outbox = outbox  # type: ignore[attr-defined]
        transaction.on_commit(outbox.flush)
    outbox.parcels.extend(parcels)


def push_jobs(job_ids: Iterable[str]) -> None:
    """Push the current dispatch of these waiting jobs after commit.

    For use cases that made jobs runnable. A push that fails is not an error: the
    dispatcher finds what the broker does not have.
    """
    broker: LedgerBroker = get_broker()  # type: ignore[assignment]
    add(broker, ledger.parcels_of(Job.objects.filter(id__in=list(job_ids))))
