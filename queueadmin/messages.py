"""What a message must look like, whether it comes from code, people or the broker."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from django.utils.crypto import salted_hmac
from dramatiq import Actor
from dramatiq.message import Message

from .conf import settings
from .exceptions import InvalidMessage
from .policies import MAX_DELAY_MS
from .states import PARKED, Priority

_STRING_LIMITS = {"queue_name": 100, "actor_name": 200, "message_id": 64}

# Options that the engine or Dramatiq reads, and what they must be. A value of another
# type would kill a worker thread, or lose the message, deep inside Dramatiq.
_NUMBERS = {"eta", "retries", "max_retries", "min_backoff", "max_backoff", "max_age"}
_NUMBERS |= {"time_limit", "delay", "unique_for", PARKED}
# Counters end up in integer columns.
_MOST = {"retries": 1_000_000, "max_retries": 1_000_000}
# The year 9999, the last one that a datetime can hold.
_LATEST_MS = 253_370_764_800_000
_STRINGS = {"on_failure", "on_success", "on_retry_exhausted", "subject", "group_completion_uuid"}
_STRINGS |= {"unique_key"}


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
    if not isinstance(message.args, tuple | list):
        raise InvalidMessage("args must be a list.", field="args")
    at = message.message_timestamp
    if not isinstance(at, int | float) or not 0 <= at < _LATEST_MS:
        raise InvalidMessage(
            "message_timestamp must be milliseconds since 1970.", field="message_timestamp"
        )
    for name, value in message.options.items():
        _validate_option(name, value)


def _validate_option(name: str, value: Any) -> None:
    if value is None:
        return
    if name in _NUMBERS:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_endless = name == "time_limit" and value == math.inf
        most = _MOST.get(name, _LATEST_MS)
        if not is_number or value < 0 or not (value < most or is_endless):
            raise InvalidMessage(
                f"option {name} must be a number from 0 to less than {most}, not {value!r:.100}.",
                field=name,
            )
    elif name in _STRINGS:
        if not isinstance(value, str) or len(value) > 150:
            raise InvalidMessage(
                f"option {name} must be text of at most 150 characters, not {value!r:.100}.",
                field=name,
            )
    elif name == "priority":
        if not isinstance(value, str) or value not in Priority.BY_NAME:
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
    return numbered_attempts(message, options, default_max_retries)


def numbered_attempts(
    message: Message[Any], options: Mapping[str, Any], default_max_retries: int | None
) -> int | None:
    """Return how often a job may run if no `retry_when` decides it; None means without end.

    Args:
        message: the job's.
        options: those of its actor.
        default_max_retries: what holds where nothing else is said.
    """
    for source in (message.options, options):
        if "max_retries" in source:
            retries = source["max_retries"]
            return None if retries is None else int(retries) + 1
    if policy := settings.policy(message.queue_name):
        return policy.attempts
    return None if default_max_retries is None else default_max_retries + 1


def unique_key(message: Message[Any], actor: "Actor[Any, Any] | None") -> tuple[str, int | None]:
    """Return the job's unique key, empty for none, and for how many milliseconds it holds it.

    The message's options come before the actor's; there `unique_key` may be a template such
    as "order:{order_id}", filled with the job's arguments by name, or a function of them.
    None as the period means while the job is unfinished.

    Raises:
        InvalidMessage: there is no key to be made of these arguments.
    """
    options = {**(actor.options if actor is not None else {}), **message.options}
    key, period = options.get("unique_key"), options.get("unique_for")
    if key is None:
        if period is not None and "unique_for" in message.options:
            raise InvalidMessage("unique_for needs a unique_key.", field="unique_for")
        return "", None
    if "unique_key" not in message.options and actor is not None:
        key = _filled(key, message, actor)
        if key is None:
            return "", None
        if actor.options.get("sensitive") and isinstance(key, str):
            # It is stored and shown, and made of arguments that must not be.
            key = salted_hmac("queueadmin.unique_key", key, algorithm="sha256").hexdigest()
    if not isinstance(key, str) or not 0 < len(key) <= 150 or not key.isprintable():
        raise InvalidMessage(
            f"unique_key must be printable text of 1 to 150 characters, not {key!r:.200}.",
            field="unique_key",
        )
    if period is not None and not 1 <= period <= 10 * MAX_DELAY_MS:
        raise InvalidMessage(
            f"unique_for must be 1 ms to 10 years in milliseconds, not {period!r}.",
            field="unique_for",
        )
    return key, None if period is None else int(period)


def _filled(template: Any, message: Message[Any], actor: "Actor[Any, Any]") -> Any:
    """Return the actor's key for the message's arguments."""
    try:
        if callable(template):
            return template(*message.args, **message.kwargs)
        bound = signature(actor.fn).bind(*message.args, **message.kwargs)
        bound.apply_defaults()
        return str(template).format(**bound.arguments)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise InvalidMessage(
            f"No unique key for {message.actor_name}: {template!r} does not fit its arguments "
            f"({type(error).__name__}: {error}).",
            field="unique_key",
        ) from error
