"""What people may see of payloads and error texts."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from .conf import settings

MASK = "••••"
_DEPTH = 20
# A shorter value stands in too many innocent words to be cut out of a text.
_SHORTEST_SECRET = 4
_MOST_SECRETS = 500

# PostgreSQL refuses NUL and lone surrogates that JSON and Redis accept.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str, limit: int = 100_000) -> str:
    """Return the text as every database takes it: no NUL, no lone surrogates, bounded."""
    return _UNSTORABLE.sub("\ufffd", text[:limit])


def is_sensitive(name: str, names: Collection[str] = ()) -> bool:
    """Return whether a field of this name is masked.

    Args:
        name: of the field.
        names: those an actor declares, in lower case; they must match as a whole. The words
            of QUEUEADMIN["SENSITIVE_FIELDS"] match as a part, everywhere.
    """
    lowered = name.lower()
    return lowered in names or any(word in lowered for word in settings.SENSITIVE_FIELDS)


def mask(
    value: Any,
    *,
    names: Collection[str] = (),
    name: str = "",
    show: Callable[[str, Any], Any] | None = None,
    hide: Callable[[Any], Any] = lambda value: MASK,
    depth: int = 0,
) -> Any:
    """Return a copy of a JSON-like value with every sensitive field replaced by dots.

    Args:
        value: what to copy.
        names: field names that an actor declares sensitive, in lower case.
        name: the name under which `value` itself stands.
        show: what to make of each value that is not masked; called with its name.
        hide: what to put in the place of each that is.
        depth: how deep `value` lies in a whole that is being copied.
    """
    if depth > _DEPTH or (name and is_sensitive(name, names)):
        return hide(value)
    if isinstance(value, dict):
        return {
            key: mask(item, names=names, name=str(key), show=show, hide=hide, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item, names=names, show=show, hide=hide, depth=depth + 1) for item in value]
    return show(name, value) if show is not None else value


def secrets_in(values: Iterable[Any]) -> set[str]:
    """Return every text and number in JSON-like values that is long enough to be a secret."""
    found: set[str] = set()
    for leaf in _leaves(values, 0):
        text = str(leaf)
        if len(text) >= _SHORTEST_SECRET:
            found.add(text)
        if len(found) >= _MOST_SECRETS:
            break
    return found


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    if depth > _DEPTH or value is None or isinstance(value, bool):
        return
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, str | int | float):
        yield value
    elif isinstance(value, Iterable):
        for item in value:
            yield from _leaves(item, depth + 1)


def redact(text: str, secrets: Collection[str]) -> str:
    """Return the text without the secrets, as they are or escaped as errors often show them."""
    if not secrets:
        return text
    forms: set[str] = set()
    for secret in secrets:
        forms |= {
            secret,
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            quote(secret, errors="replace"),
        }
    # The longest first, or a secret inside another would leave the rest of it behind.
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text
