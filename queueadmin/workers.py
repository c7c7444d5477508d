"""Use cases on worker processes: quiet, resume, stop; each audited, safe when pressed twice."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from . import audit
from .clock import now
from .conf import settings
from .models import Worker

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet


def alive() -> "QuerySet[Worker]":
    """Return the processes that were seen lately."""
    return Worker.objects.filter(seen_at__gt=lost_before())


def lost_before() -> datetime:
    """Return the moment since which a living process has been seen."""
    return now() - timedelta(milliseconds=settings.HEARTBEAT_TIMEOUT_MS)


def quiet(worker: str, *, by: "User | None", reason: str = "") -> bool:
    """Let a process finish what it runs and start nothing more; False when it already should.

    Raises:
        NotPermitted: `by` lacks the permission `control_worker`.
    """
    return _wish(worker, Worker.Wish.QUIET, "quiet", {Worker.Wish.RUN}, by, reason)


def resume(worker: str, *, by: "User | None", reason: str = "") -> bool:
    """Let a quiet process start jobs again; False when it is not quiet.

    Raises:
        NotPermitted: `by` lacks the permission `control_worker`.
    """
    return _wish(worker, Worker.Wish.RUN, "resume", {Worker.Wish.QUIET}, by, reason)


def stop(worker: str, *, by: "User | None", reason: str = "") -> bool:
    """Let a process finish what it runs and end; False when it already should.

    Its supervisor starts a fresh one in its place, so this is how a single process is
    replaced. To have fewer processes, stop their `rundramatiq`.

    Raises:
        NotPermitted: `by` lacks the permission `control_worker`.
    """
    before = {Worker.Wish.RUN, Worker.Wish.QUIET}
    return _wish(worker, Worker.Wish.STOP, "stop", before, by, reason)


def _wish(
    worker: str,
    wish: Worker.Wish,
    verb: str,
    before: set[Worker.Wish],
    by: "User | None",
    reason: str,
) -> bool:
    audit.require(by, "control_worker")
    with transaction.atomic():
        changed = Worker.objects.filter(id=worker, wish__in=before).update(wish=wish, wished_by=by)
        if changed:
            audit.record(verb, "worker", [worker], by=by, reason=reason)
    return bool(changed)
