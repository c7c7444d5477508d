"""The providers' side of each wire format: a request in, an answer out."""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .faults import RETRY_AFTER_SECONDS, Fault, Faults
from .mailbox import Mailbox

TEMPLATES: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "approved_templates.json").read_text(encoding="utf-8")
)
SEND_WHATSAPP = re.compile(r"/whatsapp/v\d+\.\d+/\d+/messages")


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer, and what to do before it."""

    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Accepted, but answered late (SLOW) or never (LOST_ANSWER); or neither (LOST_REQUEST).
    fault: Fault | None = None


class BadRequest(Exception):
    """A request that the provider cannot read; the text says why."""


Provider = Callable[[dict[str, Any], bool, Mailbox, Faults], Answer]


def route(path: str) -> Provider | None:
    """Return the provider behind a path, or None."""
    if SEND_WHATSAPP.fullmatch(path):
        return whatsapp
    return {"/sendgrid/v3/mail/send": sendgrid, "/sms/messages": sms}.get(path)


def whatsapp(request: dict[str, Any], authorised: bool, box: Mailbox, faults: Faults) -> Answer:
    """Take a template message as Meta's Cloud API does."""
    if not authorised:
        return _meta_error(401, 190, "Invalid OAuth access token.")
    try:
        to = _text(request, "to")
        if request.get("type") == "text":
            words = _free_text(request, to, box)
        else:
            words = _from_template(_object(request, "template"))
    except BadRequest as error:
        return _meta_error(400, 100, "(#100) Invalid parameter", str(error))
    except _Refused as refused:
        return refused.answer
    fault = faults.strike("whatsapp", to)
    match fault:
        case Fault.BAD_RECIPIENT:
            details = "Message undeliverable: the number is not a WhatsApp number."
            return _meta_error(400, 131026, "(#131026) Message undeliverable", details)
        case Fault.THROTTLED:
            return _meta_error(429, 130429, "(#130429) Rate limit hit", "Try again later.")
        case Fault.PAIR_THROTTLED:
            return _meta_error(400, 131056, "(#131056) Pair rate limit hit", "Wait.")
        case Fault.OUTAGE:
            return _meta_error(503, 131016, "(#131016) Service unavailable", "Overloaded.")
        case Fault.LOST_REQUEST:
            return Answer(503, fault=fault)
    message_id = f"wamid.{uuid.uuid4().hex}"
    box.add(
        message_id=message_id,
        channel="whatsapp",
        provider="whatsapp",
        recipient=to,
        text=words,
        reference=str(request.get("biz_opaque_callback_data", "")),
    )
    answer = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": to, "wa_id": to.lstrip("+")}],
        "messages": [{"id": message_id, "message_status": "accepted"}],
    }
    return Answer(200, answer, fault=fault)


def sendgrid(request: dict[str, Any], authorised: bool, box: Mailbox, faults: Faults) -> Answer:
    """Take an e-mail as SendGrid's v3 API does."""
    if not authorised:
        return _sendgrid_error(401, "The provided authorization grant is invalid", None)
    try:
        personalization = _first(request, "personalizations")
        to = _text(_first(personalization, "to"), "email")
        _text(_object(request, "from"), "email")
        subject, content = _text(request, "subject"), _first(request, "content")
        text = _text(content, "value")
    except BadRequest as error:
        return _sendgrid_error(400, str(error), "content")
    fault = faults.strike("email", to)
    match fault:
        case Fault.BAD_RECIPIENT:
            return _sendgrid_error(
                400, "Does not contain a valid address.", "personalizations.0.to.0.email"
            )
        case Fault.THROTTLED:
            return _sendgrid_error(429, "too many requests", None)
        case Fault.OUTAGE:
            return _sendgrid_error(503, "service unavailable", None)
        case Fault.LOST_REQUEST:
            return Answer(503, fault=fault)
    message_id = uuid.uuid4().hex
    arguments = personalization.get("custom_args")
    box.add(
        message_id=message_id,
        channel="email",
        provider="sendgrid",
        recipient=to,
        subject=subject,
        text=text,
        reference=str(arguments.get("reference", "")) if isinstance(arguments, dict) else "",
        attachments=[str(file.get("filename")) for file in request.get("attachments", [])],
    )
    return Answer(202, None, {"X-Message-Id": message_id}, fault=fault)


def sms(request: dict[str, Any], authorised: bool, box: Mailbox, faults: Faults) -> Answer:
    """Take a text message by the API described in `notifications.channels.sms`."""
    if not authorised:
        return _sms_error(401, "unauthorized", "The API key is not valid.")
    try:
        to, text = _text(request, "to"), _text(request, "text")
        _text(request, "from")
    except BadRequest as error:
        return _sms_error(400, "invalid_request", str(error))
    fault = faults.strike("sms", to)
    match fault:
        case Fault.BAD_RECIPIENT:
            return _sms_error(400, "invalid_number", f"{to} cannot receive messages.")
        case Fault.THROTTLED:
            return _sms_error(429, "throttled", "Too many messages.")
        case Fault.OUTAGE:
            return _sms_error(503, "unavailable", "The gateway is out of order.")
        case Fault.LOST_REQUEST:
            return Answer(503, fault=fault)
    message_id = f"sms-{uuid.uuid4().hex}"
    reference = str(request.get("reference", ""))
    box.add(
        message_id=message_id,
        channel="sms",
        provider="sms",
        recipient=to,
        text=text,
        reference=reference,
    )
    return Answer(201, {"id": message_id}, fault=fault)


class _Refused(Exception):
    """A request that is readable and not allowed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _free_text(request: dict[str, Any], to: str, box: Mailbox) -> str:
    words = _text(_object(request, "text"), "body")
    if not box.heard_lately(to):
        details = "Message failed to send because more than 24 hours have passed since the "
        details += "customer last replied to this number."
        raise _Refused(_meta_error(400, 131047, "(#131047) Re-engagement message", details))
    return words


def _from_template(template: dict[str, Any]) -> str:
    name, language = _text(template, "name"), _text(_object(template, "language"), "code")
    values = _parameters(template)
    body = TEMPLATES.get(name, {}).get(language)
    if body is None:
        details = f"template name ({name}) does not exist in {language}"
        raise _Refused(_meta_error(404, 132001, "(#132001) Template name does not exist", details))
    expected = len(set(re.findall(r"{{(\d+)}}", body)))
    if len(values) != expected:
        details = f"body: number of parameters ({len(values)}) is not the expected {expected}"
        raise _Refused(
            _meta_error(400, 132000, "(#132000) Number of parameters does not match", details)
        )
    return re.sub(r"{{(\d+)}}", lambda found: values[int(found[1]) - 1], body)


def _waiting(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 429 else {}


def _meta_error(status: int, code: int, message: str, details: str = "") -> Answer:
    error = {
        "message": message,
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": details},
        "fbtrace_id": uuid.uuid4().hex,
    }
    return Answer(status, {"error": error}, _waiting(status))


def _sendgrid_error(status: int, message: str, field: str | None) -> Answer:
    error = {"message": message, "field": field, "help": None}
    return Answer(status, {"errors": [error]}, _waiting(status))


def _sms_error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}}, _waiting(status))


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name} must be a text that is not empty")
    return value


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return value


def _first(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        raise BadRequest(f"{name} must be a list of objects that is not empty")
    return value[0]


def _parameters(template: dict[str, Any]) -> list[str]:
    components = template.get("components", [])
    if not isinstance(components, list):
        raise BadRequest("components must be a list")
    return [
        _text(parameter, "text")
        for component in components
        if isinstance(component, dict) and component.get("type") == "body"
        for parameter in component.get("parameters", [])
    ]
