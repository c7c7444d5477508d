"""Registers the app with its duties; nothing runs here."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class QueueadminConfig(AppConfig):
    name = "queueadmin"
    verbose_name = _("Queues")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import (
            breakers,
            checks,  # noqa: F401  # registers the system checks
        )
        from .dispatcher import Dispatcher

        duty = (1.0, breakers.tend)
        if duty not in Dispatcher.duties:
            Dispatcher.duties.append(duty)
