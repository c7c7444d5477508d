"""What people may see of payloads and error texts."""

import re
from typing import Any

from .conf import settings

MASK = "••••"
_DEPTH = 20

# PostgreSQL refuses NUL and lone surrogates that JSON and Redis accept.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str, limit: int = 100_000) -> str:
    """Return the text as every database takes it: no NUL, no lone surrogates, bounded."""
    return _UNSTORABLE.sub("\ufffd", text[:limit])


def is_sensitive(name: str) -> bool:
    """Return whether a field of this name is masked, by QUEUEADMIN["SENSITIVE_FIELDS"]."""
    lowered = name.lower()
    return any(word in lowered for word in settings.SENSITIVE_FIELDS)


def mask(value: Any, depth: int = 0) -> Any:
    """Return a copy of a JSON-like value with every sensitive field replaced by dots."""
    if depth > _DEPTH:
        return MASK
    if isinstance(value, dict):
        return {
            key: MASK if is_sensitive(str(key)) else mask(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item, depth + 1) for item in value]
    return value
