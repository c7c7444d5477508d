"""Doors for the providers: check who calls, read, record, answer fast.

Recording is a few rows per receipt; what takes longer becomes a job. Status codes: 403
for a call that is not signed as it must be, 413 for one that is too large, 400 for one
that is no webhook, 200 for everything else, known or repeated, so that it is not sent
again.
"""

import hmac
import json

from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from . import incoming, payloads, receipts, signatures
from .payloads import Text
from .receipts import Word

#: Providers batch some hundred events of about 500 bytes.
MAX_BYTES = 1_000_000


@csrf_exempt
@require_http_methods(["GET", "POST"])
def whatsapp(request: HttpRequest) -> HttpResponse:
    """Take Meta's statuses and messages, or answer its question who we are."""
    if request.method == "GET":
        return _introduce(request)
    if (body := _body(request)) is None:
        return _too_large()
    if not signatures.whatsapp(body, request.headers.get("X-Hub-Signature-256", "")):
        return HttpResponseForbidden("The signature is missing or wrong.")
    return _take(body, payloads.whatsapp)


@csrf_exempt
@require_POST
def sendgrid(request: HttpRequest) -> HttpResponse:
    """Take SendGrid's events."""
    if (body := _body(request)) is None:
        return _too_large()
    signature = request.headers.get("X-Twilio-Email-Event-Webhook-Signature", "")
    timestamp = request.headers.get("X-Twilio-Email-Event-Webhook-Timestamp", "")
    if not signatures.sendgrid(body, signature, timestamp):
        return HttpResponseForbidden("The signature is missing, wrong or too old.")
    return _take(body, payloads.sendgrid)


@csrf_exempt
@require_POST
def sms(request: HttpRequest) -> HttpResponse:
    """Take the SMS gateway's delivery reports."""
    if (body := _body(request)) is None:
        return _too_large()
    signature = request.headers.get("X-Signature", "")
    timestamp = request.headers.get("X-Timestamp", "")
    if not signatures.sms(body, signature, timestamp):
        return HttpResponseForbidden("The signature is missing, wrong or too old.")
    return _take(body, payloads.sms)


def _introduce(request: HttpRequest) -> HttpResponse:
    token = signatures.verify_token()
    given = request.GET.get("hub.verify_token", "")
    if not token or not hmac.compare_digest(token.encode(), given.encode()):
        return HttpResponseForbidden("The verify token is missing or wrong.")
    challenge = request.GET.get("hub.challenge", "")[:200]
    return HttpResponse(challenge, content_type="text/plain")


def _body(request: HttpRequest) -> bytes | None:
    """Return the body as it was signed, or None where it is too large to read."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = MAX_BYTES + 1
    return None if length > MAX_BYTES else request.body


def _too_large() -> HttpResponse:
    return HttpResponse(f"At most {MAX_BYTES} bytes are taken.", status=413)


def _take(body: bytes, read: payloads.Reader) -> HttpResponse:
    try:
        parts: list[Word | Text] = list(read(json.loads(body)))
    except (ValueError, RecursionError) as error:
        return HttpResponse(f"This is no webhook: {error}", status=400, content_type="text/plain")
    taken = 0
    for part in parts:
        if isinstance(part, Word):
            taken += receipts.take(part)
        else:
            taken += incoming.take(
                message_id=part.message_id, sender=part.sender, text=part.text, at=part.at
            )
    return JsonResponse({"taken": taken})
