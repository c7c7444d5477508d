"""Who really called a webhook: each provider signs in its own way.

A provider whose secret is not set is never believed. The sandbox stands for providers
without credentials; its secrets follow from the site's key, so that nobody outside can
speak in its name either.
"""

import base64
import binascii
import hashlib
import hmac
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.utils.crypto import salted_hmac

#: Signed calls older than this are replays; providers sign anew when they try again.
MAX_AGE_SECONDS = 15 * 60
_ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def whatsapp(body: bytes, signature: str) -> bool:
    """Check Meta's X-Hub-Signature-256: "sha256=" and the HMAC of the body."""
    return _hmac_matches(whatsapp_secret(), body, signature)


def sms(body: bytes, signature: str, timestamp: str) -> bool:
    """Check the gateway's X-Signature: "sha256=" and the HMAC of timestamp, dot, body."""
    if not _is_recent(timestamp):
        return False
    return _hmac_matches(sms_secret(), timestamp.encode() + b"." + body, signature)


def sendgrid(body: bytes, signature: str, timestamp: str) -> bool:
    """Check SendGrid's ECDSA signature of timestamp and body.

    https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
    """
    key = _sendgrid_key()
    if key is None or not _is_recent(timestamp):
        return False
    try:
        key.verify(
            base64.b64decode(signature, validate=True),
            timestamp.encode() + body,
            ec.ECDSA(hashes.SHA256()),
        )
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def verify_token() -> str:
    """Return the word Meta repeats when the webhook is set up; empty where there is none."""
    return str(settings.WHATSAPP_VERIFY_TOKEN)


def whatsapp_secret() -> bytes:
    """Return the secret of Meta's app; empty where none is set."""
    return _secret("whatsapp", settings.WHATSAPP_APP_SECRET, settings.WHATSAPP_TOKEN)


def sms_secret() -> bytes:
    """Return the secret shared with the SMS gateway; empty where none is set."""
    return _secret("sms", settings.SMS_WEBHOOK_SECRET, settings.SMS_API_KEY)


def sandbox_sendgrid_key() -> ec.EllipticCurvePrivateKey:
    """Return the key with which the sandbox signs in SendGrid's place."""
    number = int.from_bytes(salted_hmac("notifications.sandbox", "sendgrid").digest())
    return ec.derive_private_key(number % (_ORDER_OF_P256 - 1) + 1, ec.SECP256R1())


def _secret(name: str, configured: str, credentials: str) -> bytes:
    if configured:
        return configured.encode()
    if credentials:
        return b""
    return salted_hmac("notifications.sandbox", name).hexdigest().encode()


def _sendgrid_key() -> ec.EllipticCurvePublicKey | None:
    if configured := settings.SENDGRID_WEBHOOK_KEY:
        key = serialization.load_der_public_key(base64.b64decode(configured))
        return key if isinstance(key, ec.EllipticCurvePublicKey) else None
    if settings.SENDGRID_API_KEY:
        return None
    return sandbox_sendgrid_key().public_key()


def _hmac_matches(secret: bytes, body: bytes, signature: str) -> bool:
    if not secret:
        return False
    expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


def _is_recent(timestamp: str) -> bool:
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        return False
    return abs(time.time() - int(timestamp)) <= MAX_AGE_SECONDS
