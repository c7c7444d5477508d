"""Shows what a job was asked to do, with its secrets masked."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from .. import revealing
from ..exceptions import Undecryptable
from ..models import DeadLetter, Job
from ..resolver import Link, get_resolver

logger = logging.getLogger(__name__)

LIMIT = 20_000


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
        found = revealing.visible(job, is_revealed=is_revealed)
        if found is not None:
            return _readable(job, found, is_revealed=is_revealed)
    except Undecryptable as error:
        return ShownPayload(problem=str(error), is_readable=False)
    except Exception:
        # Boundary: neither hostile nesting nor a host's mask may break the page, and
        # what could not be masked is not shown.
        logger.exception("Payload not shown job=%s", job.pk)
    raw = bytes(dead_letter.raw) if dead_letter and dead_letter.raw else bytes(job.message)
    text = repr(raw[:LIMIT])[2:-1] if is_revealed else ""
    return ShownPayload(is_readable=False, is_cut=len(raw) > LIMIT, size=len(raw), raw=text)


def _readable(job: Job, found: revealing.Visible, *, is_revealed: bool) -> ShownPayload:
    result = "" if job.result is None else _text(found.result) or json.dumps(found.result)
    given = {"args": found.args, "kwargs": found.kwargs}
    texts = [_text(given), _text(found.options), result]
    arguments, option_text, result = (text[:LIMIT] for text in texts)
    return ShownPayload(
        arguments=arguments,
        options=option_text,
        result=result,
        is_cut=max(map(len, texts)) > LIMIT,
        is_revealed=is_revealed,
    )


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
