"""The signed link by which a vendor answers a request without logging in.

The token names the request and is signed with the site's key; it says nothing else, and
until when it holds is read from the row. Opening the page changes nothing, since programs
that preview messages open links too: only its buttons answer.
"""

from django.conf import settings
from django.core import signing
from django.urls import reverse

from .models import VendorRequest

_SALT = "orders.vendor_request"


def url(request: VendorRequest) -> str:
    """Return the address a vendor gets."""
    path = reverse("vendors:request", args=[token(request)])
    return f"{settings.SITE_URL.rstrip('/')}{path}"


def token(request: VendorRequest) -> str:
    """Return the signed reference of a request."""
    return signing.Signer(salt=_SALT).sign(str(request.pk))


def find(signed: str) -> VendorRequest | None:
    """Return the request behind a token; None for one that is not ours."""
    try:
        pk = int(signing.Signer(salt=_SALT).unsign(signed))
    except (signing.BadSignature, ValueError):
        return None
    return VendorRequest.objects.select_related("order__retailer", "vendor").filter(pk=pk).first()
