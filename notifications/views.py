"""The page behind the link in every e-mail: no more of them."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from . import optouts
from .models import Channel


# A mail program posts here without having seen the page (RFC 8058); the signed token says
# for whom, and the worst a stranger with it can do is to stop e-mails.
@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Ask, and on the button's press stop e-mails to the address."""
    address = optouts.find(token)
    if address is None:
        raise Http404(_("This link is not complete."))
    if request.method == "POST":
        optouts.add(Channel.EMAIL, address, source="link")
    context = {"address": address, "is_done": optouts.holds(Channel.EMAIL, address)}
    return render(request, "notifications/unsubscribe.html", context)
