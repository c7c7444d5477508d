"""Where the providers are and how we log in: the sandbox, unless there are credentials."""

from dataclasses import dataclass

from django.conf import settings

WHATSAPP_URL = "https://graph.facebook.com"
SENDGRID_URL = "https://api.sendgrid.com"


@dataclass(frozen=True, slots=True)
class Access:
    """Address and secret of a provider's HTTP API."""

    url: str
    token: str


def whatsapp() -> Access:
    """Return the access to the WhatsApp Cloud API."""
    return _access(settings.WHATSAPP_API_URL, settings.WHATSAPP_TOKEN, WHATSAPP_URL, "whatsapp")


def sendgrid() -> Access:
    """Return the access to SendGrid's v3 API."""
    return _access(settings.SENDGRID_API_URL, settings.SENDGRID_API_KEY, SENDGRID_URL, "sendgrid")


def sms() -> Access:
    """Return the access to the SMS gateway, which has no well-known address."""
    return _access(settings.SMS_API_URL, settings.SMS_API_KEY, "", "sms")


def _access(url: str, token: str, public_url: str, sandbox_path: str) -> Access:
    sandbox = f"{settings.SANDBOX_URL.rstrip('/')}/{sandbox_path}"
    chosen = url or (public_url if token else "") or sandbox
    return Access(url=chosen.rstrip("/"), token=token or "sandbox")
