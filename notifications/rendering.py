"""Fills the templates of an event: one file per channel under templates/notifications/."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string
from django.utils import translation

from .models import Event

#: Sent as free text, which WhatsApp takes for 24 hours after somebody wrote to us.
FREE_TEXT = frozenset({Event.BALANCE_ANSWER})


@dataclass(frozen=True, slots=True)
class WhatsAppTemplate:
    """A message by a template the provider approved: its name, language and parameters."""

    name: str
    language: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WhatsAppText:
    """A message in words of our own."""

    text: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with an e-mail."""

    name: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Email:
    """An e-mail in plain text and HTML."""

    subject: str
    text: str
    html: str
    attachments: tuple[Attachment, ...] = ()
    #: Where the recipient can say that it wants no more.
    unsubscribe: str = ""


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message."""

    text: str


def whatsapp(
    event: Event, context: Mapping[str, Any], *, language: str = "en"
) -> WhatsAppTemplate | WhatsAppText:
    """Return the message: free text, or each line of the file as one parameter, in order."""
    rendered = _render(event, "whatsapp.txt", context, language)
    if event in FREE_TEXT:
        return WhatsAppText(rendered.strip())
    # An empty parameter is refused, and one left out would move the others.
    parameters = tuple(line.strip() or "–" for line in rendered.splitlines())
    return WhatsAppTemplate(event.value, language, parameters)


def email(
    event: Event,
    context: Mapping[str, Any],
    *,
    language: str = "en",
    attachments: tuple[Attachment, ...] = (),
    unsubscribe: str = "",
) -> Email:
    """Return the e-mail; values are escaped in its HTML part."""
    values = {**context, "unsubscribe": unsubscribe, "language": language}
    return Email(
        subject=_render(event, "subject.txt", values, language).strip(),
        text=_render(event, "email.txt", values, language),
        html=_render(event, "email.html", values, language),
        attachments=attachments,
        unsubscribe=unsubscribe,
    )


def sms(event: Event, context: Mapping[str, Any], *, language: str = "en") -> Sms:
    """Return the text message."""
    return Sms(_render(event, "sms.txt", context, language).strip())


def _render(event: Event, suffix: str, context: Mapping[str, Any], language: str) -> str:
    with translation.override(language):
        return render_to_string(f"notifications/{event.value}.{suffix}", _one_line(dict(context)))


def _one_line(value: Any) -> Any:
    """Put every text of the context on one line.

    A line break in a shop's name would add a WhatsApp parameter or an e-mail header.
    """
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {key: _one_line(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_line(item) for item in value]
    return value
