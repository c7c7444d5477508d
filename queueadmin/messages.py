"""What a message must look like, whether it comes from code, people or the broker."""

import math
from typing import Any

from dramatiq import Actor
from dramatiq.message import Message

from .conf import settings
from .exceptions import InvalidMessage
from .states import Priority

_STRING_LIMITS = {"queue_name": 100, "actor_name": 200, "message_id": 64}

# Options that the engine or Dramatiq reads, and what they must be. A value of another
# type would kill a worker thread, or lose the message, deep inside Dramatiq.
_NUMBERS = {"eta", "retries", "max_retries", "min_backoff", "max_backoff", "max_age"}
_NUMBERS |= {"time_limit", "delay"}
_STRINGS = {"on_failure", "on_success", "on_retry_exhausted", "subject", "group_completion_uuid"}


def validate(message: Message[Any]) -> None:
    """Check everything about a message that the engine relies on.

    Raises:
        InvalidMessage: names the field and what it must be.
    """
    for name, longest in _STRING_LIMITS.items():
        value = getattr(message, name)
        if not isinstance(value, str) or not 0 < len(value) <= longest:
            raise InvalidMessage(
                f"{name} must be text of 1 to {longest} characters, not {value!r:.100}.", field=name
            )
        if not value.isprintable():
            raise InvalidMessage(f"{name} has unprintable characters: {value!r:.100}.", field=name)
    if not isinstance(message.kwargs, dict) or not isinstance(message.options, dict):
        raise InvalidMessage("kwargs and options must be objects.", field="kwargs")
    if not isinstance(message.message_timestamp, int | float):
        raise InvalidMessage("message_timestamp must be a number.", field="message_timestamp")
    for name, value in message.options.items():
        _validate_option(name, value)


def _validate_option(name: str, value: Any) -> None:
    if value is None:
        return
    if name in _NUMBERS:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_endless = name == "time_limit" and value == math.inf
        if not is_number or value < 0 or not (value < 1e15 or is_endless):
            raise InvalidMessage(
                f"option {name} must be a number of 0 or more, not {value!r:.100}.", field=name
            )
    elif name in _STRINGS:
        if not isinstance(value, str) or len(value) > 150:
            raise InvalidMessage(
                f"option {name} must be text of at most 150 characters, not {value!r:.100}.",
                field=name,
            )
    elif name == "priority":
        if value not in Priority.BY_NAME:
            known = ", ".join(Priority.BY_NAME)
            raise InvalidMessage(f"option {name} must be one of {known}.", field=name)
    elif name == "sensitive":
        if not isinstance(value, list | tuple) or not all(isinstance(v, str | int) for v in value):
            raise InvalidMessage("option sensitive must be a list of names of fields.", field=name)
    elif name == "sealed":
        if not isinstance(value, str):
            raise InvalidMessage("option sealed must be text.", field=name)
    elif name == "throws":
        raise InvalidMessage("option throws belongs to the actor, not to a message.", field=name)


def max_attempts(
    message: Message[Any], actor: "Actor[Any, Any] | None", default_max_retries: int | None
) -> int | None:
    """Return how often the job may run: by message, actor, queue policy, then the default.

    None means without end, or decided by the actor's `retry_when`.
    """
    options = actor.options if actor is not None else {}
    if options.get("retry_when") is not None:
        return None
    for source in (message.options, options):
        if "max_retries" in source:
            retries = source["max_retries"]
            return None if retries is None else int(retries) + 1
    if policy := settings.policy(message.queue_name):
        return policy.attempts
    return None if default_max_retries is None else default_max_retries + 1
