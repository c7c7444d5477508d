"""Registers the app; nothing runs here."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NotificationsConfig(AppConfig):
    """Tells people what happened, by WhatsApp, e-mail and SMS."""

    name = "notifications"
    verbose_name = _("Notifications")
