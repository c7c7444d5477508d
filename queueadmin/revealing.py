"""What a person sees of a payload: masked, or whole, and then it is kept that they saw it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction

from . import audit, masking, payloads
from .exceptions import NotPermitted
from .models import Job
from .resolver import get_resolver

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PERMISSION = "reveal_payload"
#: Options that Dramatiq and queueadmin keep for themselves.
_INTERNAL = ("traceback", "requeue_timestamp", "sensitive")


@dataclass(frozen=True, slots=True)
class Visible:
    """What may be seen of a payload, ready for JSON."""

    args: Any
    kwargs: Any
    options: Any
    result: Any


def visible(job: Job, *, is_revealed: bool = False) -> Visible | None:
    """Return what may be seen of a job's payload; None where it cannot be read.

    Args:
        job: with its message.
        is_revealed: show it whole; see `reveal`, which comes first.

    Raises:
        Undecryptable: the key is missing, or the token was tampered with.
    """
    fields = payloads.decoded(bytes(job.message))
    if fields is None:
        return None
    if is_revealed:
        found = {name: fields.get(name) for name in ("args", "kwargs", "options")}
    else:
        found = payloads.masked(fields, show=partial(get_resolver().mask, job))
    options = found["options"]
    if isinstance(options, Mapping):
        options = {key: value for key, value in options.items() if key not in _INTERNAL}
    result = _result(job, fields, is_revealed=is_revealed)
    return Visible(found["args"], found["kwargs"], options, result)


def _result(job: Job, fields: payloads.Fields, *, is_revealed: bool) -> Any:
    """Return the result; of a sensitive job it is as sensitive as what went in."""
    if job.result is None:
        return None
    result = json.loads(payloads.open_result(job.result))
    if is_revealed:
        return result
    if payloads.sensitive_parts(fields, payloads.known_actors()):
        return masking.MASK
    return masking.mask(result)


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
