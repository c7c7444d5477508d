"""What the channels share: the HTTP call, and what each way it can fail means.

The line that matters runs between "certainly not taken" and "perhaps taken". A request
that may have reached the provider without an answer is of unknown outcome and is never
repeated by itself.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx2

from ..exceptions import (
    ConfigurationDeliveryError,
    DeliveryError,
    OutcomeUnknown,
    ProviderUnavailable,
    RetryLater,
    Throttled,
)
from ..rendering import Email

#: Connect 3 s, answer 10 s: two providers in a row stay under the queues' limit of 30 s.
TIMEOUT = httpx2.Timeout(connect=3, read=10, write=10, pool=3)
#: No provider may park a message for longer than this.
MAX_DELAY_MS = 60 * 60 * 1000
#: How much of a provider's answer is kept for people.
MAX_DETAILS = 500
MAX_ID = 255

TOO_MANY_REQUESTS = 429
GATEWAY_TIMEOUT = 504
CREDENTIAL_STATUSES = (401, 403)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's word that it took the message."""

    provider: str
    message_id: str

    @classmethod
    def of(cls, provider: str, message_id: object) -> "Receipt":
        """Return the receipt for an id as the provider sent it."""
        return cls(provider, text(message_id)[:MAX_ID])


@cache
def _client() -> httpx2.Client:
    # Connections are not kept: one that the provider closed meanwhile fails after the
    # request was written, and its outcome would be unknown.
    return httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0))


def post(provider: str, url: str, *, token: str, json: dict[str, Any]) -> httpx2.Response:
    """Post `json` once and return the answer, whatever its status.

    Raises:
        ProviderUnavailable: the request certainly did not reach the provider.
        ConfigurationDeliveryError: the address is not one that can be called.
        OutcomeUnknown: the request may have reached the provider, and no answer came.
    """
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    try:
        return _client().post(url, json=json, headers=headers, timeout=TIMEOUT)
    except (
        httpx2.ConnectError,
        httpx2.ConnectTimeout,
        httpx2.PoolTimeout,
        httpx2.ProxyError,
    ) as error:
        raise ProviderUnavailable(
            f"{provider} cannot be reached: {error}", provider=provider, code="unreachable"
        ) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise ConfigurationDeliveryError(
            f"The address or token of {provider} is not usable: {error}", provider=provider
        ) from error
    except httpx2.TransportError as error:
        raise OutcomeUnknown(
            f"{provider} was called and gave no answer ({type(error).__name__}); "
            "the message may have been delivered.",
            provider=provider,
            code="no_answer",
        ) from error


def body(response: httpx2.Response) -> dict[str, Any]:
    """Return the answer's JSON object; empty where there is none."""
    try:
        decoded = response.json()
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def text(value: object) -> str:
    """Return a provider's words, shortened to what people read and every database keeps."""
    if not value:
        return ""
    # PostgreSQL refuses NUL and lone surrogates, which JSON allows.
    storable = str(value).replace("\0", "").encode(errors="replace").decode()
    return storable[:MAX_DETAILS]


def delay_ms(response: httpx2.Response) -> int | None:
    """Return the wait in milliseconds the provider asks for, or None where it names none.

    Reads Retry-After (seconds or a date) and SendGrid's X-RateLimit-Reset (epoch seconds).
    """
    seconds: float | None = None
    if after := response.headers.get("Retry-After"):
        seconds = _seconds(after)
    elif reset := response.headers.get("X-RateLimit-Reset"):
        seconds = float(reset) - time.time() if reset.isdecimal() else None
    if seconds is None:
        return None
    return min(max(round(seconds * 1000), 0), MAX_DELAY_MS)


def _seconds(after: str) -> float | None:
    if after.isdecimal():
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except ValueError:
        return None
    return (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def throttled(
    response: httpx2.Response, message: str, *, provider: str, code: str, details: str = ""
) -> DeliveryError:
    """Return the error for a provider that wants a pause, with its wait where it names one."""
    wait = delay_ms(response)
    if wait is None:
        return Throttled(message, provider=provider, code=code, details=details)
    return RetryLater(message, delay_ms=wait, provider=provider, code=code, details=details)


def status_error(
    response: httpx2.Response, message: str, *, provider: str, code: str, details: str = ""
) -> DeliveryError | None:
    """Return the error an HTTP status stands for with every provider; None for other 4xx.

    A 504 comes from a gateway whose provider did not answer in time, which is as unknown
    as our own time-out; every other 5xx is a provider saying that it failed.
    """
    status = response.status_code
    facts = {"provider": provider, "code": code, "details": details}
    if status == TOO_MANY_REQUESTS:
        return throttled(response, message, **facts)
    if status == GATEWAY_TIMEOUT:
        return OutcomeUnknown(message, **facts)
    if response.is_server_error:
        if response.headers.get("Retry-After"):
            return throttled(response, message, **facts)
        return ProviderUnavailable(message, **facts)
    if status in CREDENTIAL_STATUSES or response.has_redirect_location:
        return ConfigurationDeliveryError(message, **facts)
    return None


def unreadable(response: httpx2.Response, *, provider: str) -> OutcomeUnknown:
    """Return the error for a success whose answer names no message."""
    return OutcomeUnknown(
        f"{provider} answered {response.status_code} without a message id; "
        "the message may have been delivered.",
        provider=provider,
        code=str(response.status_code),
        details=text(response.text),
    )


def unsubscribe_headers(message: Email) -> dict[str, str]:
    """Return the headers that let a mail program offer to unsubscribe (RFC 8058)."""
    if not message.unsubscribe:
        return {}
    return {
        "List-Unsubscribe": f"<{message.unsubscribe}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
