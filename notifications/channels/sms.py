"""SMS by an HTTP gateway with a small JSON API of our own shape.

    POST {SMS_API_URL}/messages        Authorization: Bearer {SMS_API_KEY}
    {"to": "+447700900123", "from": "Orders", "text": "…", "reference": "…"}
    → 201 {"id": "…"}    otherwise {"error": {"code": "invalid_number", "message": "…"}}

Refusals of the recipient have the code `invalid_number` or `opted_out`. A gateway with
another API gets a small adapter that speaks this one.
"""

import httpx2
from django.conf import settings

from .. import providers
from ..exceptions import DeliveryError, MessageRejected, RecipientRejected
from ..rendering import Sms
from .base import Receipt, body, post, status_error, text, unreadable

PROVIDER = "sms"
RECIPIENT_CODES = frozenset({"invalid_number", "opted_out"})


def send(message: Sms, *, to: str, reference: str) -> Receipt:
    """Send a text message.

    Args:
        message: the text.
        to: phone number in E.164 form.
        reference: comes back in the gateway's receipts.

    Raises:
        DeliveryError: the subclass says whether and when to try again.
    """
    access = providers.sms()
    response = post(
        PROVIDER,
        f"{access.url}/messages",
        token=access.token,
        json={
            "to": to,
            "from": settings.SMS_SENDER,
            "text": message.text,
            "reference": reference,
        },
    )
    if not response.is_success:
        raise _error(response)
    message_id = body(response).get("id")
    if not message_id:
        raise unreadable(response, provider=PROVIDER)
    return Receipt.of(PROVIDER, message_id)


def _error(response: httpx2.Response) -> DeliveryError:
    found = body(response).get("error")
    error = found if isinstance(found, dict) else {}
    code = text(error.get("code")) or str(response.status_code)
    details = text(error.get("message"))
    message = f"The SMS gateway refused the message: {details or f'HTTP {response.status_code}'}"
    facts = {"provider": PROVIDER, "code": code, "details": details}
    if code in RECIPIENT_CODES:
        return RecipientRejected(message, **facts)
    return status_error(response, message, **facts) or MessageRejected(message, **facts)
