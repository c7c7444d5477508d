"""WhatsApp by Meta's Cloud API.

Wire format: POST /{version}/{phone_number_id}/messages, see
https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages
Error codes: https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
Meta recommends to decide by `code` and `error_data.details`, not by title or HTTP status.
"""

from typing import Any

import httpx2
from django.conf import settings

from .. import providers
from ..exceptions import (
    ConfigurationDeliveryError,
    DeliveryError,
    MessageRejected,
    PairThrottled,
    ProviderUnavailable,
    RecipientRejected,
)
from ..rendering import WhatsAppTemplate, WhatsAppText
from .base import Receipt, body, delay_ms, post, status_error, text, throttled, unreadable

PROVIDER = "whatsapp"
VERSION = "v23.0"
#: The sandbox takes any sender; Meta's own ids are as long.
SANDBOX_SENDER = "100000000000001"

THROTTLED = frozenset(
    {
        4,  # calls of the app
        80007,  # calls of the business account
        130429,  # throughput of the sender
        131048,  # sender flagged as spam for now
    }
)
#: Too many messages from this sender to this recipient: one every 6 s, more in a burst.
PAIR = 131056
PAIR_WAIT_MS = 6000
OUTAGE = frozenset(
    {
        1,  # unknown API error, "invalid request or possible server error"
        2,  # service down or overloaded
        131000,  # unknown error
        131016,  # service overloaded
        131057,  # account in maintenance
        133004,  # server temporarily unavailable
    }
)
CONFIGURATION = frozenset(
    {
        0,  # token not accepted
        3,  # capability or permission missing
        10,  # permission missing
        33,  # the sender was deleted
        190,  # token expired
        *range(200, 300),  # permission missing
        368,  # account blocked for a policy violation
        131005,  # access denied
        131031,  # account locked
        131042,  # payment method missing
        131045,  # sender not registered with a certificate
        133010,  # sender not registered
    }
)
RECIPIENT = frozenset(
    {
        130472,  # recipient is part of an experiment
        130497,  # recipient's country not allowed
        131021,  # recipient is the sender
        131026,  # undeliverable: not on WhatsApp, terms not accepted, old version
        131047,  # free text more than 24 hours after the recipient's last message
        131030,  # recipient not on the allowed list of a test sender
        131049,  # held back to protect the recipient
        131050,  # recipient opted out
    }
)


def send(message: WhatsAppTemplate | WhatsAppText, *, to: str, reference: str) -> Receipt:
    """Send a message.

    Args:
        message: an approved template with its parameters, or free text.
        to: phone number in E.164 form.
        reference: comes back in Meta's receipts.

    Raises:
        DeliveryError: the subclass says whether and when to try again.
    """
    access = providers.whatsapp()
    sender = settings.WHATSAPP_PHONE_NUMBER_ID or SANDBOX_SENDER
    response = post(
        PROVIDER,
        f"{access.url}/{VERSION}/{sender}/messages",
        token=access.token,
        json=_request(message, to=to, reference=reference),
    )
    if not response.is_success:
        raise _error(response)
    try:
        return Receipt.of(PROVIDER, body(response)["messages"][0]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise unreadable(response, provider=PROVIDER) from error


def _request(
    message: WhatsAppTemplate | WhatsAppText, *, to: str, reference: str
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": to,
        "biz_opaque_callback_data": reference,
    }
    if isinstance(message, WhatsAppText):
        return {**request, "type": "text", "text": {"preview_url": False, "body": message.text}}
    parameters = [{"type": "text", "text": value} for value in message.parameters]
    template = {
        "name": message.name,
        "language": {"code": message.language},
        "components": [{"type": "body", "parameters": parameters}],
    }
    return {**request, "type": "template", "template": template}


def _error(response: httpx2.Response) -> DeliveryError:
    found = body(response).get("error")
    error: dict[str, Any] = found if isinstance(found, dict) else {}
    data = error.get("error_data")
    details = text(data.get("details") if isinstance(data, dict) else "")
    code = error["code"] if type(error.get("code")) is int else None
    facts = {
        "provider": PROVIDER,
        "code": str(code if code is not None else response.status_code),
        "details": details,
    }
    said = text(error.get("message")) or f"HTTP {response.status_code}"
    message = f"WhatsApp refused the message: {said}" + (f" ({details})" if details else "")
    if code == PAIR:
        wait = delay_ms(response)
        return PairThrottled(message, delay_ms=PAIR_WAIT_MS if wait is None else wait, **facts)
    if code in THROTTLED:
        return throttled(response, message, **facts)
    if code in OUTAGE:
        return ProviderUnavailable(message, **facts)
    if code in CONFIGURATION:
        return ConfigurationDeliveryError(message, **facts)
    if code in RECIPIENT:
        return RecipientRejected(message, **facts)
    # Templates (132xxx), parameters (100, 131008, 131009) and whatever is new.
    return status_error(response, message, **facts) or MessageRejected(message, **facts)
