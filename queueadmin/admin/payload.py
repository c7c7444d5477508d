"""Shows what a job was asked to do, with its secrets masked."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import masking, payloads
from ..exceptions import Undecryptable
from ..models import DeadLetter, Job
from ..resolver import Link, get_resolver

logger = logging.getLogger(__name__)

LIMIT = 20_000
#: Options that Dramatiq and queueadmin keep for themselves; the page shows them elsewhere.
_INTERNAL = ("traceback", "requeue_timestamp", "sensitive")


@dataclass(frozen=True, slots=True)
class ShownPayload:
    """A payload as text for people."""

    arguments: str = ""
    options: str = ""
    is_readable: bool = True
    result: str = ""
    is_cut: bool = False
    #: Why it cannot be decrypted.
    problem: str = ""
    is_revealed: bool = False
    #: Size of a message that cannot be read, and its bytes where the reader may see them.
    size: int = 0
    raw: str = ""


def shown(
    job: Job, dead_letter: DeadLetter | None = None, *, is_revealed: bool = False
) -> ShownPayload:
    """Return a job's payload masked, unless it is being revealed, and cut.

    Args:
        job: with its message.
        dead_letter: its dead letter, which keeps the bytes of an undecodable message.
        is_revealed: show it whole, and bytes that cannot be read too; whoever asks for that
            was permitted to see it, and it is in the audit trail.
    """
    try:
        fields = payloads.decoded(bytes(job.message))
        if fields is not None:
            return _readable(job, fields, is_revealed=is_revealed)
    except Undecryptable as error:
        return ShownPayload(problem=str(error), is_readable=False)
    except Exception:
        # Boundary: neither hostile nesting nor a host's mask may break the page, and
        # what could not be masked is not shown.
        logger.exception("Payload not shown job=%s", job.pk)
    raw = bytes(dead_letter.raw) if dead_letter and dead_letter.raw else bytes(job.message)
    text = repr(raw[:LIMIT])[2:-1] if is_revealed else ""
    return ShownPayload(is_readable=False, is_cut=len(raw) > LIMIT, size=len(raw), raw=text)


def _readable(job: Job, fields: payloads.Fields, *, is_revealed: bool) -> ShownPayload:
    if is_revealed:
        found = {name: fields.get(name) for name in ("args", "kwargs", "options")}
    else:
        found = payloads.masked(fields, show=partial(get_resolver().mask, job))
    options = found.pop("options")
    if isinstance(options, Mapping):
        options = {key: value for key, value in options.items() if key not in _INTERNAL}
    texts = [_text(found), _text(options), _result(job, fields, is_revealed=is_revealed)]
    arguments, option_text, result = (text[:LIMIT] for text in texts)
    return ShownPayload(
        arguments=arguments,
        options=option_text,
        result=result,
        is_cut=max(map(len, texts)) > LIMIT,
        is_revealed=is_revealed,
    )


def _result(job: Job, fields: payloads.Fields, *, is_revealed: bool) -> str:
    """Return the result as text; of a sensitive job it is as sensitive as what went in."""
    if job.result is None:
        return ""
    result = json.loads(payloads.open_result(job.result))
    if not is_revealed:
        is_sensitive = bool(payloads.sensitive_parts(fields, payloads.known_actors()))
        result = masking.MASK if is_sensitive else masking.mask(result)
    return _text(result) or json.dumps(result)


def described(job: Job) -> tuple[str, list[Link]]:
    """Return the host's line about a job and its links, or the bare name if it fails."""
    try:
        resolver = get_resolver()
        return resolver.describe(job), list(resolver.links(job))
    except Exception:
        # Boundary: the host's code must not hide the failure staff came to see.
        logger.exception("Resolver failed job=%s", job.pk)
        return job.actor, []


def _text(value: Any) -> str:
    """Return a JSON value as indented text."""
    return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
