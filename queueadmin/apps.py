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
            failuregroups,
            operations,
        )
        from .dispatcher import Dispatcher

        for duty in (
            (1.0, breakers.tend),
            (0.5, operations.carry_on),
            (30.0, failuregroups.wake),
        ):
            if duty not in Dispatcher.duties:
                Dispatcher.duties.append(duty)
