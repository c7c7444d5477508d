"""Shows what a job was asked to do, with its secrets masked."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..masking import MASK, is_sensitive
from ..models import DeadLetter, Job
from ..resolver import Link, Resolver, get_resolver

logger = logging.getLogger(__name__)

LIMIT = 20_000
#: Options that Dramatiq and queueadmin keep for themselves; the page shows them elsewhere.
_INTERNAL = ("traceback", "requeue_timestamp")


@dataclass(frozen=True, slots=True)
class ShownPayload:
    """A payload as text for people."""

    arguments: str = ""
    options: str = ""
    is_readable: bool = True
    is_cut: bool = False
    #: Size of a message that cannot be read, and its bytes where the reader may see them.
    size: int = 0
    raw: str = ""


def shown(
    job: Job, dead_letter: DeadLetter | None = None, *, may_reveal: bool = False
) -> ShownPayload:
    """Return a job's payload masked and cut.

    Args:
        job: with its message.
        dead_letter: its dead letter, which keeps the bytes of an undecodable message.
        may_reveal: whether bytes that cannot be masked may be shown.
    """
    try:
        payload = job.payload
        if payload is not None:
            arguments = {"args": payload.get("args"), "kwargs": payload.get("kwargs")}
            options = payload.get("options")
            kept = (
                {key: value for key, value in options.items() if key not in _INTERNAL}
                if isinstance(options, Mapping)
                else options
            )
            resolver = get_resolver()
            text = _text(_masked(resolver, job, arguments))
            option_text = _text(_masked(resolver, job, kept))
            return ShownPayload(
                text[:LIMIT], option_text[:LIMIT], is_cut=max(len(text), len(option_text)) > LIMIT
            )
    except Exception:
        # Boundary: neither hostile nesting nor a host's mask may break the page, and
        # what could not be masked is not shown.
        logger.exception("Payload not shown job=%s", job.pk)
    raw = bytes(dead_letter.raw) if dead_letter and dead_letter.raw else bytes(job.message)
    text = repr(raw[:LIMIT])[2:-1] if may_reveal else ""
    return ShownPayload(is_readable=False, is_cut=len(raw) > LIMIT, size=len(raw), raw=text)


def described(job: Job) -> tuple[str, list[Link]]:
    """Return the host's line about a job and its links, or the bare name if it fails."""
    try:
        resolver = get_resolver()
        return resolver.describe(job), list(resolver.links(job))
    except Exception:
        # Boundary: the host's code must not hide the failure staff came to see.
        logger.exception("Resolver failed job=%s", job.pk)
        return job.actor, []


def _masked(resolver: Resolver, job: Job, value: Any, name: str = "") -> Any:
    """Return `value` with sensitive fields masked at any depth."""
    if name and is_sensitive(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _masked(resolver, job, item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(resolver, job, item) for item in value]
    return resolver.mask(job, name, value)


def _text(value: Any) -> str:
    """Return a JSON value as indented text."""
    return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
