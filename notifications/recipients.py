"""Finds the people a delivery is for, without knowing which app keeps them."""

from datetime import time
from typing import Protocol, runtime_checkable

from django.apps import apps
from django.conf import settings
from django.db import models

from .exceptions import RecipientRejected
from .models import Channel


@runtime_checkable
class Recipient(Protocol):
    """A model whose rows can be told something."""

    def notification_name(self) -> str:
        """Return how to call the recipient."""

    def notification_address(self, channel: Channel) -> str:
        """Return the current phone number (E.164) or e-mail address for `channel`."""


@runtime_checkable
class Speaker(Protocol):
    """A recipient who chose a language."""

    def notification_language(self) -> str:
        """Return the code of the language, such as "de"."""


@runtime_checkable
class Sleeper(Protocol):
    """A recipient who may have quiet hours."""

    def notification_quiet_hours(self) -> tuple[time, time] | None:
        """Return from when until when, in the site's time zone; None for never."""


def language_of(recipient: object) -> str:
    """Return the language messages to `recipient` are in."""
    if isinstance(recipient, Speaker):
        return recipient.notification_language()
    return settings.LANGUAGE_CODE


def resolve(reference: str) -> models.Model | None:
    """Return the row behind "app.model:pk", or None where there is none."""
    label, _, pk = reference.partition(":")
    try:
        model = apps.get_model(label)
        found: models.Model | None = model._default_manager.filter(pk=pk).first()
    except (LookupError, ValueError):
        return None
    return found


def find(reference: str) -> Recipient:
    """Return the recipient behind `reference`.

    Raises:
        RecipientRejected: there is no such row, or it is nobody who can be told something.
    """
    # By shape: a model has no common base with its role here.
    found: object = resolve(reference)
    if not isinstance(found, Recipient):
        raise RecipientRejected(f"There is no recipient {reference!r} any more.", code="missing")
    return found
