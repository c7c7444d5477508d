"""Fills the templates of an event: one file per channel under templates/notifications/."""

from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string

from .models import Event


@dataclass(frozen=True, slots=True)
class WhatsAppTemplate:
    """A message by a template the provider approved: its name, language and parameters."""

    name: str
    language: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Email:
    """An e-mail in plain text and HTML."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message."""

    text: str


def whatsapp(event: Event, context: dict[str, Any], *, language: str = "en") -> WhatsAppTemplate:
    """Return the template message: each line of the file is one parameter, in order."""
    lines = _render(event, "whatsapp.txt", context).splitlines()
    return WhatsAppTemplate(event.value, language, tuple(line.strip() for line in lines if line))


def email(event: Event, context: dict[str, Any]) -> Email:
    """Return the e-mail; values are escaped in its HTML part."""
    return Email(
        subject=_render(event, "subject.txt", context).strip(),
        text=_render(event, "email.txt", context),
        html=_render(event, "email.html", context),
    )


def sms(event: Event, context: dict[str, Any]) -> Sms:
    """Return the text message."""
    return Sms(_render(event, "sms.txt", context).strip())


def _render(event: Event, suffix: str, context: dict[str, Any]) -> str:
    return render_to_string(f"notifications/{event.value}.{suffix}", _one_line(context))


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
