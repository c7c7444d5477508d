"""What the providers say later: signed webhooks, as each of them would call."""

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from .mailbox import Message

#: Receipts follow this soon; a real provider takes seconds.
DELAY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Calls the site's webhooks.

    Args:
        url: where the webhooks are, up to the provider's name.
        whatsapp_secret: signs WhatsApp's calls.
        sms_secret: signs the gateway's calls.
        sendgrid_key: signs SendGrid's calls.
        delay_seconds: how long after the message its receipts come.
    """

    url: str
    whatsapp_secret: bytes
    sms_secret: bytes
    sendgrid_key: ec.EllipticCurvePrivateKey
    delay_seconds: float = DELAY_SECONDS

    def report_later(self, message: Message) -> None:
        """Report a message as delivered, in a while and in a thread of its own."""
        timer = threading.Timer(self.delay_seconds, self.report, args=(message,))
        timer.daemon = True
        timer.start()

    def report(self, message: Message) -> None:
        """Report a message as delivered, now."""
        now = int(time.time())
        match message.provider:
            case "whatsapp":
                status = {
                    "id": message.id,
                    "status": "delivered",
                    "timestamp": str(now),
                    "recipient_id": message.recipient.lstrip("+"),
                    "biz_opaque_callback_data": message.reference,
                }
                self.send_whatsapp({"statuses": [status]})
            case "sendgrid":
                event = {
                    "event": "delivered",
                    "email": message.recipient,
                    "timestamp": now,
                    "sg_message_id": f"{message.id}.filter",
                    "sg_event_id": uuid.uuid4().hex,
                    "reference": message.reference,
                }
                self.send_sendgrid([event])
            case "sms":
                self.send_sms(
                    {
                        "id": message.id,
                        "reference": message.reference,
                        "status": "delivered",
                        "at": now,
                    }
                )

    def write(self, sender: str, text: str) -> None:
        """Report a message that somebody wrote to the business by WhatsApp."""
        message = {
            "id": f"wamid.{uuid.uuid4().hex}",
            "from": sender.lstrip("+"),
            "timestamp": str(int(time.time())),
            "type": "text",
            "text": {"body": text},
        }
        self.send_whatsapp({"messages": [message]})

    def send_whatsapp(self, value: dict[str, Any]) -> None:
        """Call as Meta does."""
        entry = {"id": "1", "changes": [{"field": "messages", "value": value}]}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        signature = hmac.new(self.whatsapp_secret, body, hashlib.sha256).hexdigest()
        self._post("whatsapp", body, {"X-Hub-Signature-256": f"sha256={signature}"})

    def send_sendgrid(self, events: list[dict[str, Any]]) -> None:
        """Call as SendGrid does."""
        body, timestamp = json.dumps(events).encode(), str(int(time.time()))
        signature = self.sendgrid_key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        self._post("sendgrid", body, headers)

    def send_sms(self, report: dict[str, Any]) -> None:
        """Call as the SMS gateway does."""
        body, timestamp = json.dumps(report).encode(), str(int(time.time()))
        signed = timestamp.encode() + b"." + body
        signature = hmac.new(self.sms_secret, signed, hashlib.sha256).hexdigest()
        headers = {"X-Signature": f"sha256={signature}", "X-Timestamp": timestamp}
        self._post("sms", body, headers)

    def _post(self, provider: str, body: bytes, headers: dict[str, str]) -> None:
        request = urllib.request.Request(  # noqa: S310  # the address is the site's own
            f"{self.url.rstrip('/')}/{provider}/",
            data=body,
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                answer.read()
        except OSError as error:
            # A real provider would try again; the sandbox only says so.
            print(f"Webhook {provider} failed: {error}", flush=True)  # noqa: T201
