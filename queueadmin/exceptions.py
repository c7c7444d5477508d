"""What can go wrong, split by what the caller does next."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured


class QueueadminError(Exception):
    """Base of every error queueadmin raises on purpose."""


class PermanentError(QueueadminError):
    """Raise it in an actor when no retry can help: the job becomes a dead letter at once."""


class RetryAfter(QueueadminError):
    """Raise it in an actor to set the next wait; it counts as a failed attempt.

    Args:
        message: what happened, for people.
        delay_ms: wait in milliseconds before the next attempt, as the provider asked.
    """

    def __init__(self, message: str, *, delay_ms: int) -> None:
        super().__init__(message)
        self.delay_ms = delay_ms


class Cancelled(BaseException):
    """Raised in the thread of a running job that somebody cancelled.

    It strikes between two lines of Python, so not in a call that waits in C code. No
    `Exception`, so that an actor's handlers of errors let it pass; one that catches it and
    returns has completed its job.
    """


class InvalidMessage(QueueadminError, ValueError):
    """A message that must not be enqueued; it says which field is wrong and why."""

    def __init__(self, problem: str, *, field: str | None = None) -> None:
        super().__init__(problem)
        self.field = field


class Undecryptable(QueueadminError):
    """A payload cannot be opened with the keys there are; it is kept as it is."""


class InvalidTransition(QueueadminError):
    """Somebody else changed the record first, or its state does not allow this."""


class NotPermitted(QueueadminError):
    """The user lacks the permission for this verb."""


class ConfigurationError(QueueadminError, ImproperlyConfigured):
    """A setting is wrong; it says which one and what would be right."""


def describe(error: BaseException) -> dict[str, Any]:
    """Return an error's public facts: its class, text and the values it carries."""
    facts = {key: value for key, value in vars(error).items() if not key.startswith("_")}
    return {"type": type(error).__qualname__, "text": str(error), **facts}
