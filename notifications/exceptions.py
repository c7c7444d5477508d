"""Why a message could not be delivered, split by what happens next.

Transient errors are tried again by the queue's policy, permanent and configuration errors
become dead letters at once, and an unknown outcome waits for a person.
"""

from queueadmin.exceptions import PermanentError, QueueadminError, RetryAfter


class DeliveryError(QueueadminError):
    """A message was not, or perhaps not, delivered.

    Args:
        message: what happened, for people.
        provider: the provider's name, such as "whatsapp".
        code: the provider's code for it, or the HTTP status.
        details: the provider's own words.
    """

    def __init__(
        self, message: str, *, provider: str = "", code: str = "", details: str = ""
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.code = code
        self.details = details


class TransientDeliveryError(DeliveryError):
    """A later attempt may succeed; nothing was delivered."""


class ProviderUnavailable(TransientDeliveryError):
    """The provider cannot be reached or is out of order."""


class Throttled(TransientDeliveryError):
    """The provider takes no more messages for now and names no time."""


class RetryLater(TransientDeliveryError, RetryAfter):
    """The provider names the time after which it may be tried again.

    Args:
        message: what happened, for people.
        delay_ms: wait in milliseconds that the provider asks for.
        provider: the provider's name.
        code: the provider's code for it, or the HTTP status.
        details: the provider's own words.
    """

    def __init__(
        self, message: str, *, delay_ms: int, provider: str = "", code: str = "", details: str = ""
    ) -> None:
        RetryAfter.__init__(self, message, delay_ms=delay_ms)
        self.provider = provider
        self.code = code
        self.details = details


class PairThrottled(RetryLater):
    """Too many messages to this one recipient; others may go on."""


class PermanentDeliveryError(DeliveryError, PermanentError):
    """No retry can help until somebody changes the data."""


class RecipientRejected(PermanentDeliveryError):
    """The recipient's address is wrong or cannot be reached by this channel."""


class MessageRejected(PermanentDeliveryError):
    """The provider does not take this message, whoever it is for."""


class ConfigurationDeliveryError(DeliveryError, PermanentError):
    """Credentials, permissions or account are wrong: every message will fail until mended."""


class OutcomeUnknown(DeliveryError, PermanentError):
    """Nobody knows whether the message arrived; a person decides whether to send it again."""


class DeliveryMissing(PermanentDeliveryError):
    """The delivery a job was about does not exist any more."""
