"""SendGrid's v3 API.

Wire format: POST /v3/mail/send → 202 with X-Message-Id, see
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
Errors: {"errors": [{"message", "field", "help"}]}, see
https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors
"""

import base64
from email.utils import parseaddr
from typing import Any

import httpx2
from django.conf import settings

from .. import providers
from ..exceptions import DeliveryError, MessageRejected, RecipientRejected
from ..rendering import Email
from .base import Receipt, body, post, status_error, text, unreadable, unsubscribe_headers

PROVIDER = "sendgrid"


def send(message: Email, *, to: str, reference: str) -> Receipt:
    """Send an e-mail.

    Args:
        message: subject, text and HTML.
        to: the recipient's address.
        reference: comes back in SendGrid's events.

    Raises:
        DeliveryError: the subclass says whether and when to try again.
    """
    access = providers.sendgrid()
    response = post(
        PROVIDER,
        f"{access.url}/v3/mail/send",
        token=access.token,
        json=_request(message, to=to, reference=reference),
    )
    if not response.is_success:
        raise _error(response)
    message_id = response.headers.get("X-Message-Id")
    if not message_id:
        raise unreadable(response, provider=PROVIDER)
    return Receipt.of(PROVIDER, message_id)


def _request(message: Email, *, to: str, reference: str) -> dict[str, Any]:
    name, address = parseaddr(settings.DEFAULT_FROM_EMAIL)
    sender = {"email": address, "name": name} if name else {"email": address}
    request: dict[str, Any] = {
        "personalizations": [{"to": [{"email": to}], "custom_args": {"reference": reference}}],
        "from": sender,
        "subject": message.subject,
        "content": [
            {"type": "text/plain", "value": message.text},
            {"type": "text/html", "value": message.html},
        ],
    }
    if message.unsubscribe:
        request["headers"] = unsubscribe_headers(message)
    if message.attachments:
        request["attachments"] = [
            {
                "content": base64.b64encode(file.content).decode(),
                "filename": file.name,
                "type": file.kind,
                "disposition": "attachment",
            }
            for file in message.attachments
        ]
    return request


def _error(response: httpx2.Response) -> DeliveryError:
    found = body(response).get("errors")
    errors = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    details = text("; ".join(str(item.get("message", "")) for item in errors))
    said = details or f"HTTP {response.status_code}"
    message = f"SendGrid refused the message: {said}"
    facts = {"provider": PROVIDER, "code": str(response.status_code), "details": details}
    if general := status_error(response, message, **facts):
        return general
    # Fields look like "personalizations.0.to.0.email"; only ours name the recipient.
    if any(".to." in str(item.get("field")) for item in errors):
        return RecipientRejected(message, **facts)
    return MessageRejected(message, **facts)
