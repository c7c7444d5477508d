"""Makes something that a job does outside of the database happen once, however often it runs.

That it begins is committed before it does, and that it is done afterwards. So a later run of
the job knows of three cases: not begun, done, and begun by a run of which nobody heard again.
In the last one nobody but the other side can know what happened, and a person decides.

Of two runs at once the unique constraint lets one begin. The other finds it begun, and fails
for good; the outcome of the job's current dispatch counts, whichever run that is.
"""

import json
import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import transaction

from . import audit, clock, execution
from .exceptions import PermanentError
from .models import Effect
from .states import EffectState

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class NothingDone(Exception):
    """Raise it, or a subclass, in an effect that for certain did not take place."""


class EffectUnknown(PermanentError):
    """An earlier run of the job began this and did not say how it ended."""

    def __init__(self, job: str, name: str) -> None:
        super().__init__(
            f"An earlier run of job {job} began {name!r} and did not say how it ended. Find out "
            "whether it took place, tell `manage.py queueadmin settle-effect`, and requeue the job."
        )
        self.job = job
        self.name = name


def once(
    name: str,
    act: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call `act` unless an earlier run of this job has; return what it returned then or now.

    Call it in an actor and outside of any transaction: what is not committed proves nothing
    to the next run. An error of `act` leaves open whether something took place, unless it is
    a `NothingDone`: then a later run tries again.

    Args:
        name: what it is among the effects of this job; the same in every run.
        act: does it, and returns what JSON can express. What it returns to a job with sensitive
            arguments is not kept; a later run gets None.
        *args: for `act`.
        **kwargs: for `act`.

    Raises:
        EffectUnknown: an earlier run began it and did not say how it ended. The job becomes
            a dead letter at once.
        RuntimeError: no job runs in this thread, or a transaction is open.
    """
    run = execution.current()
    if run is None:
        raise RuntimeError(f"{name!r} is an effect of a job, and none runs in this thread.")
    claim = uuid.uuid4()
    with transaction.atomic(durable=True):
        effect, is_ours = Effect.objects.get_or_create(
            job_id=run.job,
            name=name,
            defaults={"state": EffectState.BEGUN, "claim": claim, "begun_at": clock.now()},
        )
    if not is_ours:
        if effect.state == EffectState.BEGUN:
            raise EffectUnknown(run.job, name)
        # What was kept is what `act` returned.
        kept: T = json.loads(effect.result or "null")
        return kept
    ours = Effect.objects.filter(pk=effect.pk, claim=claim, state=EffectState.BEGUN)
    try:
        result = act(*args, **kwargs)
    except NothingDone:
        ours.delete()
        raise
    encoded = None if result is None or run.is_sensitive else json.dumps(result)
    if not ours.update(state=EffectState.DONE, done_at=clock.now(), result=encoded):
        logger.error("Effect %s of job=%s took place after somebody had settled it.", name, run.job)
    return result


def settle(job_id: str, name: str, *, was_done: bool, by: "User | None", reason: str = "") -> bool:
    """Say of an effect that is unknown whether it took place; return whether it was unknown.

    When it did, later runs skip it, with None as its result; else the next run does it.

    Raises:
        NotPermitted: `by` may not requeue dead letters.
    """
    audit.require(by, "requeue_deadletter")
    with transaction.atomic():
        rows = unknown(job_id, name)
        if was_done:
            changed = rows.update(state=EffectState.DONE, done_at=clock.now())
        else:
            changed, _ = rows.delete()
        if changed:
            audit.record(
                "settle effect", "job", [job_id], by=by, reason=reason, name=name, was_done=was_done
            )
    return bool(changed)


def unknown(job_id: str, name: str) -> "QuerySet[Effect]":
    """Return the effect while it is begun and nobody has said how it ended; or no row."""
    return Effect.objects.filter(job_id=job_id, name=name, state=EffectState.BEGUN)
