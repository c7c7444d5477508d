"""Who wants no more messages by a channel, and the signed link by which they say so."""

from django.conf import settings
from django.core import signing
from django.urls import reverse

from .models import Channel, OptOut

_SALT = "notifications.optout"


def add(channel: Channel, address: str, *, source: str) -> bool:
    """Stop messages to an address; return whether that is new."""
    _, is_new = OptOut.objects.get_or_create(
        channel=channel, address=address, defaults={"source": source}
    )
    return is_new


def remove(channel: Channel, address: str) -> bool:
    """Allow messages to an address again; return whether it had opted out."""
    return bool(OptOut.objects.filter(channel=channel, address=address).delete()[0])


def holds(channel: Channel, address: str) -> bool:
    """Return whether nothing may be sent to an address."""
    return OptOut.objects.filter(channel=channel, address=address).exists()


def url(address: str) -> str:
    """Return the page where the holder of an e-mail address can opt out without a log-in."""
    token = signing.Signer(salt=_SALT).sign(address)
    path = reverse("notifications:unsubscribe", args=[token])
    return f"{settings.SITE_URL.rstrip('/')}{path}"


def find(token: str) -> str | None:
    """Return the address a token stands for; None for one that is not ours."""
    try:
        return signing.Signer(salt=_SALT).unsign(token)
    except signing.BadSignature:
        return None
