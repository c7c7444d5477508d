"""Registers the app; nothing runs here."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class QueueadminConfig(AppConfig):
    name = "queueadmin"
    verbose_name = _("Queues")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  # registers the system checks
