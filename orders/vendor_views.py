"""The page behind a vendor's link: one order, two buttons, no log-in."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from queueadmin import clock

from . import links, workflow
from .exceptions import AnswerTooLate
from .models import RequestState, VendorRequest

GONE = 410
CONFLICT = 409
ANSWERS = {"confirm": True, "refuse": False}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def request_page(request: HttpRequest, token: str) -> HttpResponse:
    """Show what is asked, and take the answer of one of the two buttons.

    404 for a link that is not ours, 410 for one whose time is over, 409 for an answer that
    comes after another. Opening the page answers nothing.
    """
    asked = links.find(token)
    if asked is None:
        raise Http404(_("This link is not complete."))
    if request.method != "POST":
        return _page(request, asked, status=GONE if _is_over(asked) else 200)
    accepted = ANSWERS.get(request.POST.get("answer", ""))
    if accepted is None:
        return _page(request, asked, status=400)
    try:
        workflow.answer(asked, accepted=accepted, note=request.POST.get("note", "").strip())
    except AnswerTooLate as error:
        return _page(request, error.request, status=GONE if _is_over(error.request) else CONFLICT)
    return redirect("vendors:request", token=token)


def _is_over(asked: VendorRequest) -> bool:
    """Return whether the link leads to nothing that could be answered, or was."""
    if asked.state == RequestState.OPEN:
        return asked.expires_at <= clock.now()
    return asked.state in (RequestState.SILENT, RequestState.WITHDRAWN)


def _page(request: HttpRequest, asked: VendorRequest, *, status: int) -> HttpResponse:
    context = {
        "asked": asked,
        "order": asked.order,
        "lines": asked.order.lines.all(),
        "can_answer": asked.state == RequestState.OPEN and not _is_over(asked),
    }
    return render(request, "orders/vendor_request.html", context, status=status)
